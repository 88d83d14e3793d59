"""A job is an evaluation as plain data: on another machine it gives the same score, or it fails."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from judging import answering
from observing import quiet
from pydantic import ValidationError

from harness.base.errors import ConfigError, JudgeError
from harness.core.asked import Asked
from harness.core.jobs import Evaluation, Expected, JobSpec
from harness.search import local
from harness.search.local import LocalEvaluator
from scorers.score import Score
from tasks.spec import find_task

ROOT = Path(__file__).parents[2]
ASKED = Asked(task="toy", profile="test")

ELSEWHERE = """
import base64, json, sys
from harness.core.jobs import JobSpec
from harness.search.local import LocalEvaluator
job = JobSpec.model_validate_json(sys.stdin.read())
evaluator = LocalEvaluator(1)
(evaluation,) = evaluator.submit([job], lambda *_: None)
evaluated = evaluation.result()
evaluator.close()
log = base64.b64encode(evaluated.log).decode()
print(json.dumps({"score": evaluated.score.model_dump(mode="json"), "log": log}))
"""
"""A program that evaluates a job in another process, from its JSON alone."""

OTHER = {
    "label": "7",
    "task": "toy-configurable",
    "profile": "quick",
    "data": {"rows": "9"},
    "sandbox": "docker",
    "split": "test",
    "files": {"model.py": "print(2)"},
    "training_seed": 1,
    "audit_seed": "b",
    "strict": True,
    "expected": Expected(task_hash="t", data_hash="d", hidden_key="", scorer="s", image="i"),
}
"""Another value for each field of a job."""


@pytest.fixture
def evaluator():
    made = LocalEvaluator(2)
    yield made
    made.close()


@pytest.fixture
def place(evaluator, isolating):
    asked = ASKED.model_copy(update={"sandbox": isolating.name})
    return evaluator.get_ready(asked, trusted=False, hardware=None, progress=quiet, observe=quiet)


@pytest.fixture
def job(place):
    files = find_task("toy").designs()[0].files
    files = {"model.py": files["model.py"] + '\nprint("h\\u00e9llo from inside", flush=True)\n'}
    return place.job(ASKED, "3", files, split="search", training_seed=5, audit_seed="ab")


def test_a_job_is_json_and_what_decides_it_is_in_its_id(job):
    assert JobSpec.model_validate_json(job.model_dump_json()) == job
    assert set(OTHER) == set(JobSpec.model_fields) - {"format"}, "each field stands above"
    files = dict(reversed({**job.files, "b.py": ""}.items()))
    both = [job.model_copy(update={"files": f}) for f in (files, dict(reversed(files.items())))]
    assert both[0].id == both[1].id, "the order of files decides nothing"
    for name, value in OTHER.items():
        other = job.model_copy(update={name: value})
        assert (other.id == job.id) == (name == "label"), name
        own = name in ("label", "files", "training_seed", "audit_seed")
        assert (other.batch_key == job.batch_key) == own, name


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": "train"},
        {"training_seed": -1},
        {"format": 2},
        {"files": {"model.py": 3}},
        {"another": 1},
    ],
)
def test_what_comes_as_a_job_is_checked(job, wrong):
    text = json.dumps({**job.model_dump(mode="json"), **wrong})
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        JobSpec.model_validate_json(text)


def test_a_job_evaluated_elsewhere_gives_the_same_score_and_brings_its_log(evaluator, job):
    (here,) = evaluator.submit([job], quiet)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=job.model_dump_json(), cwd=ROOT,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    score = here.result().score
    assert score.valid
    # Only the times, the memory and the candidate's user may differ.
    own = {"seconds": True, "peak_memory_mb": True, "conditions": {"candidate_uid"}}
    assert Score.model_validate(there["score"]).model_dump(exclude=own) == score.model_dump(
        exclude=own
    )
    assert "héllo from inside" in here.result().log.decode()
    assert base64.b64decode(there["log"]) == here.result().log


@pytest.mark.parametrize("name", Expected.model_fields)
def test_where_a_name_stands_for_another_thing_nothing_is_evaluated(
    evaluator, job, name, monkeypatch
):
    monkeypatch.setattr(local, "judge", lambda *_: pytest.fail("it was evaluated"))
    other = job.model_copy(update={"expected": job.expected.model_copy(update={name: "other"})})
    (evaluation,) = evaluator.submit([other], quiet)
    error = evaluation.exception(100)
    assert isinstance(error, ConfigError), error
    assert "The evaluation of 3 cannot be made here: it would be another" in error.message
    assert f"{name}: expected 'other', found {getattr(job.expected, name)!r}" in error.cause
    assert error.cause.count("expected") == 1


def test_a_task_that_was_changed_meanwhile_is_another_question(evaluator, isolating, changed_toy):
    task = changed_toy(('name = "toy"', 'name = "changing"'))
    asked = Asked(task="changing", profile="test", sandbox=isolating.name)
    how = {"trusted": False, "hardware": None, "progress": quiet, "observe": quiet}
    place = evaluator.get_ready(asked, **how)
    runner = task / "runner.py"
    runner.write_text(runner.read_text() + "\n# Another one.\n")
    question = {"split": "search", "training_seed": 0, "audit_seed": "a"}
    (evaluation,) = evaluator.submit([place.job(asked, "0", {}, **question)], quiet)
    assert "task_hash: expected" in evaluation.exception(100).cause


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"training_seed": 6}, "other files, split or seeds"),
        ({"audit_seed": "ac"}, "other files, split or seeds"),
        ({"split": "test"}, "other files, split or seeds"),
        ({"files": {"model.py": ""}}, "other files, split or seeds"),
        ({"profile": "quick"}, "profile: expected 'test', found 'quick'"),
        ({"sandbox": "process"}, "sandbox: expected "),
    ],
)
def test_an_answer_to_another_question_is_nobodys_score(evaluator, job, changes, cause):
    like = evaluator.submit([job], quiet)[0].result().score
    mine, other = Evaluation(job, quiet), job.model_copy(update=changes)
    mine.set_result(answering(other, like))
    error = mine.exception(0)
    assert isinstance(error, JudgeError)
    assert error.message == "What came back for 3 is the answer to another question."
    assert cause in error.cause


def test_an_answer_made_with_other_things_is_nobodys_score(evaluator, job):
    like = evaluator.submit([job], quiet)[0].result().score
    for name in Expected.model_fields:
        expected = job.expected.model_copy(update={name: "other"})
        mine = Evaluation(job, quiet)
        mine.set_result(answering(job.model_copy(update={"expected": expected}), like))
        # A score does not record the key of its hidden rows; the hash of its data covers it.
        assert (mine.exception(0) is None) == (name == "hidden_key"), name
    mine = Evaluation(job, quiet)
    mine.set_result(answering(job, like))
    assert mine.result(0).score.score == like.score
