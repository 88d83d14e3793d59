"""Fixtures of the command tests: a finished run that tests read or copy, and a quick fake judge.

Tests must not change the finished run itself: the whole session shares it.
"""

import re
import shutil
from types import SimpleNamespace

import pytest
from calling import call
from judging import answering
from toy_task import TOY, TOYS

from harness.search import local
from scorers.score import Score


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with one finished toy run of four nodes, and the JSON that the command printed."""
    here = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_TASKS_DIR", str(TOYS))
        patch.setenv("HARNESS_DATA", str(tmp_path_factory.getbasetemp() / "data"))
        argv = ("run", *TOY, "--steps", 4, "--json")
        return here, call(*argv, cwd=here).json


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that folder, which the test may change, and the same JSON."""
    here, result = finished
    shutil.copytree(here / "runs", tmp_path / "runs")
    return tmp_path, result


@pytest.fixture
def judged(finished, monkeypatch):
    """A fake judge without a sandbox: knobs and seed alone decide the score.

    Before each evaluation it calls ``first`` with the job's label: a node's number, "final" or
    "submission".
    """
    here, result = finished
    score = here / result["run"] / "nodes" / "0000" / "score.json"
    pattern = Score.model_validate_json(score.read_bytes())
    judge = SimpleNamespace(first=lambda node: None)

    def judged(evaluation, request):
        job = evaluation.job
        judge.first(job.label)
        known = re.search(r"'known': (\d)", request.files["model.py"])
        score = int(known[1]) / 4 if known else 0.5
        return answering(job, pattern, score=score - job.training_seed % 8 / 100)

    monkeypatch.setattr(local, "judge", judged)
    return judge
