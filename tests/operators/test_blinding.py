"""What a blind model is told, and how its answers become the task's own."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import ConfigError
from harness.core.writing import Writing
from harness.operators.blinding import Blindfold, neutral_names
from harness.operators.model_agent import ModelAgent
from tasks import architecture
from tasks.spec import all_tasks, find_task
from tests.operators.model import Scripted, ask, scored

NAME = "architecture.txt"
BLIND = Writing(blind=True)
SEED = next(s for s in range(99) if neutral_names(find_task("compose/mad"), s)["A"] == "Xb")
"""A run's seed with A called Xb and M called Xa."""
CAN = sorted(name for name, task in all_tasks().items() if task.definition.blind)


def blind_ask(replies, operator="draft", parents=(), nodes=(), task="compose/mad", **more):
    made = ask(Scripted(replies), operator, parents, nodes, task=task, steps=9, **more)
    return replace(made, run_seed=SEED)


def written(reply):
    return ModelAgent("m", BLIND).write(blind_ask([reply] * 3)).files


@pytest.mark.parametrize("task", CAN)
def test_all_primitives_are_permuted_by_the_runs_seed_alone(task):
    found = [neutral_names(find_task(task), seed) for seed in range(40)]
    primitives = find_task(task).definition.sequence.primitives
    for names in found:
        assert set(names) == set(primitives)
        assert set(names.values()) == {"Xa", "Xb", "Xc"} - ({"Xc"} if len(names) == 2 else set())
    orders = {tuple(names[p] for p in primitives) for names in found}
    assert len(orders) == {2: 2, 3: 6}[len(primitives)]
    assert found[7] == neutral_names(find_task(task), 7)


def test_an_answer_is_written_in_the_tasks_own_names():
    assert written("More.\n\n````architecture.txt\nXb Xa\nXa, Xb\n````\n") == {NAME: "A M M A\n"}


@pytest.mark.parametrize("reply", ["A M A M", "Xa Xb A M", "AMAM", "Xa Xb Mb Xa", "attention, mlp"])
def test_the_real_names_and_all_else_are_no_names_to_a_blind_model(reply):
    (text,) = written(f"```\n{reply}\n```").values()
    with pytest.raises(architecture.Misread):
        architecture.read(text, ("A", "M", "Mb"), 4)


WORDS = st.lists(st.sampled_from(["Xa", "Xb", "A", "M", "Q", "xa", "?", "?A", "12", "Xc"]))


@given(WORDS, st.integers(0, 99))
def test_what_was_written_is_shown_again_as_it_was_written(words, seed):
    fold = Blindfold.of(find_task("compose/mad"), "test", seed)
    text = architecture.write(words)
    real = fold.real({NAME: text})
    shown = fold.over(replace(blind_ask([], nodes=[scored(0, files=real)]), run_seed=seed))
    given_back = architecture.words(shown.tree[0].files[NAME])
    assert given_back == [w for word in architecture.words(text) for w in architecture.words(word)]


TREE = [
    scored(0, score=0.41, note="in turn", files={NAME: "A M A M\n"}, knobs={"layer_01": "A"}),
    scored(1, valid=False, reason="interface_error", files={NAME: "A ?foo\n"},
           message="architecture.txt: line 1, column 3: '?foo' is not a primitive; there are A, M"),
    scored(2, valid=False, reason="not_finite", files={NAME: "M M M M\n"},
           message="Its training diverged on selective_copying, memorization: not finite."),
    scored(3, valid=False, reason="missing_file", files={}, message=f"No {NAME} was submitted."),
]  # fmt: skip
LOG = (
    "A M A M: trained by the judge's own code, together with 0 others\n"
    "in_context_recall: accuracy 0.4 (macro 0.3), loss 2.1 nats\n"
)


def told(operator, parents=()):
    agent = ModelAgent("m", BLIND)
    made = blind_ask(["Xa Xb Xa Xb"], operator, parents, TREE, log=lambda _: LOG)
    agent.write(made)
    (_, prompt) = made.model.asked[0]
    return prompt.system, prompt.turns[0].text


def test_earlier_nodes_are_shown_in_neutral_names_with_what_the_judge_would_have_said():
    system, text = told("improve", (0,))
    assert "````architecture.txt\n" in system
    assert "one of these symbols:\n`Xa`, `Xb`." in system
    assert "A model is a stack of 4 layers." in system
    assert "profile `blind`" in system
    assert "in turn Submitted: Xb Xa Xb Xa\n" in text
    assert "Xb Xa Xb Xa: trained by the judge's own code" in text
    assert "part 2: accuracy 0.4" in text
    _, text = told("debug", (1,))
    assert f"{NAME}: line 1, column 4: 'foo' is not a primitive; there are Xa and Xb." in text
    _, text = told("debug", (2,))
    assert "Its training diverged on part 5, part 1: not finite." in text
    _, text = told("debug", (3,))
    assert f"No {NAME} was submitted." in text


@pytest.mark.parametrize("task", CAN)
@pytest.mark.parametrize("profile", ["test", "smoke", "short", "paper"])
def test_the_description_of_no_profile_names_anything(task, profile):
    found = Blindfold.of(find_task(task), profile, 0).told
    text = f"{found.definition.title} {found.description('blind')} {found.profile('blind').about}"
    assert "{" not in text
    for word in ("attention", "mlp", "mamba", "arxiv", "compose", "language", "recall"):
        assert word not in text.lower()
    assert "MAD" not in text
    assert f"stack of {find_task(task).layers(profile)} layers" in text


@pytest.mark.parametrize("task", CAN)
def test_each_part_of_the_data_has_another_word(task):
    chosen = find_task(task)
    own = task.partition("/")[2]
    said = [str(p.data.get("parts", own)) for p in chosen.definition.profiles.values()]
    parts = {part for one in said for part in one.split(",")}
    assert parts <= chosen.definition.blind.words.keys()


def test_what_is_off_changes_no_record():
    assert "blind" not in Writing().model_dump()
    assert "blind" not in Writing().model_dump_json()
    assert Writing.model_validate(BLIND.model_dump()) == BLIND
    assert BLIND.model_dump(exclude_defaults=True) == {"blind": True}


def test_a_task_that_does_not_say_how_cannot_be_blind():
    with pytest.raises(ConfigError, match="lra/listops cannot be blind") as caught:
        Blindfold.of(find_task("lra/listops"), "test", 0)
    assert "leave --blind out" in caught.value.remedy


def test_the_hash_of_what_is_told_depends_on_it():
    mad, stories = find_task("compose/mad"), find_task("compose/stories")
    assert mad.blind_hash("test") == mad.blind_hash("test") != mad.blind_hash("paper")
    assert mad.blind_hash("smoke") != stories.blind_hash("smoke")
