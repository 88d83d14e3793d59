"""One rule for the text of an architecture: what is read, what is refused, and in which words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks import architecture, kinds
from tasks.definition import Definition
from tasks.kinds import Kind
from tasks.spec import Task, find_task

THREE = ("A", "M", "Mb")
WORDS = st.lists(st.sampled_from(THREE), min_size=1, max_size=20)
GAPS = st.sampled_from(["", " ", ",", ", ", "\n", "\r\n", "\t", "\n\n# a comment\n"])


@given(WORDS, st.data())
def test_what_stands_between_names_does_not_matter(names, data):
    text = "".join(name + data.draw(GAPS) for name in names)
    assert architecture.read(text, THREE, len(names)) == tuple(names)
    assert architecture.read(architecture.write(names), THREE, len(names)) == tuple(names)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("A M X M", "line 1, column 5: 'X' is not a primitive"),
        ("AMXM", "line 1, column 3: 'X' is not a primitive"),
        ("a m a m", "line 1, column 1: 'a' is not a primitive"),
        ("A\r\nM\r\nm\r\nA", "line 3, column 1: 'm' is not a primitive"),
        ("layer,primitive\n1,A\n", "line 1, column 1: 'layer' is not a primitive"),
        ("1,A\n2,M\n", "line 1, column 1: '1' is not a primitive"),
        ("A M\n[A, M]", "line 2, column 1: '[' is not a primitive"),
        ("A-M-A-M", "line 1, column 2: '-' is not a primitive"),
        ("A M MB A", "line 1, column 6: 'B' is not a primitive"),
        ("A M Ma A", "line 1, column 5: 'Ma' is not a primitive"),
        ("А M A M", "line 1, column 1: 'А' is not a primitive"),
        ("A M A M # end", "line 1, column 9: '#' is not a primitive"),
        ("x" * 9000, f"line 1, column 1: '{'x' * 20}' is not a primitive"),
        ("A M A", "4 layers are wanted, and it has 3"),
        ("A M A M A", "4 layers are wanted, and it has 5"),
        ("", "4 layers are wanted, and it is empty"),
        ("# A M A M\n \r\n", "4 layers are wanted, and it is empty"),
    ],
)
def test_all_else_is_refused_with_its_place(text, place):
    with pytest.raises(architecture.Misread) as refused:
        architecture.read(text, THREE, 4)
    assert place in str(refused.value)
    assert "Wanted: names of primitives in order" in str(refused.value)


def test_a_byte_order_mark_is_no_layer():
    assert architecture.read("\ufeffA M\r\n", THREE, 2) == ("A", "M")


@pytest.mark.parametrize(
    "answer",
    [
        "First the mixers.\n\n````architecture.txt\nA, A\nMb M\n````\nThat is all.",
        "```\nM M M M\n```\nNo, rather:\n```text\n# mine\nA A Mb M\n```",
        "I would say\nAAMbM\n",
        "~~~\r\nA\r\nA\r\nMb\r\nM\r\n~~~",
    ],
)
def test_an_answers_last_block_or_line_is_written_in_the_usual_way(answer):
    assert architecture.parse(answer, ["architecture.txt"]) == {"architecture.txt": "A A Mb M\n"}


def test_what_is_no_architecture_is_left_to_the_judge():
    found = architecture.parse("```\nattention, mlp\n```", ["architecture.txt"])
    assert found == {"architecture.txt": "attention, mlp\n"}
    for nothing in ("", " \n", "```\n\n```"):
        with pytest.raises(ValueError, match="It names no primitives"):
            architecture.parse(nothing, ["architecture.txt"])


@pytest.mark.parametrize("name", ["compose/mad", "compose/mad-hybrid"])
@pytest.mark.parametrize("profile", ["test", "smoke", "short", "paper"])
def test_every_design_is_a_submission_of_its_profile(name, profile):
    task = find_task(name)
    layers = int(task.profile(profile).settings["layers"])
    designs = task.designs(profile)
    assert len(designs) >= 3
    for design in designs:
        (text,) = design.files.values()
        architecture.read(text, task.definition.sequence.primitives, layers)
    assert {design.name for design in designs} <= {design.name for design in task.designs()}


def test_the_published_patterns_have_the_published_layers():
    """Counts of A, M, Mb in arXiv 2605.15871, section 6.1 (the base strings of 16 layers)."""
    expected = {
        "airaformer_a": (7, 9, 0), "airaformer_b": (7, 9, 0), "airaformer_c": (11, 5, 0),
        "airaformer_d": (11, 5, 0), "composite": (5, 11, 0), "sandwich": (8, 8, 0),
        "best_single": (4, 12, 0), "airahybrid_a": (0, 3, 13), "airahybrid_b": (3, 5, 8),
        "airahybrid_c": (7, 3, 6), "airahybrid_d": (3, 7, 6), "airahybrid_e": (5, 6, 5),
    }  # fmt: skip
    found = {}
    for name in ("compose/mad", "compose/mad-hybrid"):
        for design in find_task(name).designs("paper"):
            names = architecture.names(*design.files.values(), THREE)
            found[design.name] = tuple(names.count(primitive) for primitive in THREE)
    assert {name: found[name] for name in expected} == expected


def test_each_layer_is_a_knob():
    task = find_task("compose/mad")
    knobs = task.knobs("test")
    assert list(knobs) == ["layer_01", "layer_02", "layer_03", "layer_04"]
    assert all(knob.choices == ("A", "M") for knob in knobs.values())
    values = dict(zip(knobs, "AMMA", strict=True))
    assert task.render(values) == {"architecture.txt": "A M M A\n"}
    assert len(task.knobs("paper")) == 16


def test_other_primitives_are_another_task():
    task = find_task("compose/mad")
    sequence = task.definition.sequence.model_copy(update={"primitives": ("A", "Mb")})
    other = Task(task.folder, task.definition.model_copy(update={"sequence": sequence}), "fixed")
    assert other.hash("paper") != task.hash("paper")
    designs = task.definition.sequence.model_copy(update={"designs": {}})
    same = Task(task.folder, task.definition.model_copy(update={"sequence": designs}), "fixed")
    assert same.hash("paper") == task.hash("paper")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runner": ["x.py"], "entry": "x.py"}, "of kind proxies has no runner"),
        ({"kind": "classification", "metric": "accuracy"}, "has a runner and its entry"),
        ({"layers": 0}, "settings of profile test say no layers from 1 to 99"),
        ({"layers": 100}, "settings of profile test say no layers from 1 to 99"),
        ({"layers": "4"}, "settings of profile test say no layers from 1 to 99"),
        ({"layers": True}, "settings of profile test say no layers from 1 to 99"),
        ({"pattern": "A X"}, "'X' is not a primitive"),
        ({"pattern": "# A"}, "design alternating has no layers"),
    ],
)
def test_a_task_that_says_otherwise_is_refused(change, said):
    given = find_task("compose/mad").definition.model_dump()
    if "layers" in change:
        given["profiles"]["test"]["settings"].update(change)
    elif "pattern" in change:
        given["sequence"]["designs"]["alternating"]["layers"] = change["pattern"]
    else:
        given.update(change)
    with pytest.raises(ValidationError, match=said):
        Definition.model_validate(given)


def test_a_kind_needs_somebody_who_measures():
    assert "neither an examiner nor" in kinds._fault("mine", Kind("accuracy"))
    assert kinds._fault("mine", Kind("accuracy", together="module:function")) == ""
    assert not Kind("accuracy", together="module:function").runs_code
    assert Kind("accuracy", "module:class", together="module:function").runs_code
