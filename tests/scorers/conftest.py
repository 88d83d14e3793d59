"""Fixtures: evaluate a toy submission with the real judge in a real sandbox, parse its source."""

import io
import json
import sys
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest
from judging import limited
from lm import Language2
from observing import quiet

from scorers import evaluate as evaluation
from scorers import judge, source, submission
from scorers.evaluate import evaluate
from scorers.request import Request
from tasks.spec import find_task

PATIENT = {"train_s": 120, "serve_s": 120}
"""Seconds. No machine is so slow: a submission that takes longer hangs."""


@pytest.fixture(scope="session")
def language():
    return Language2()


@pytest.fixture
def score_toy(tmp_path, isolating, monkeypatch):
    """Return a function that scores the source of a toy ``model.py``, with long time limits.

    ``limits`` replaces limits of the profile. Attributes of the function: ``log``, the file with
    the submission's output, and ``data``, the folder of the prepared data.
    """
    monkeypatch.setattr(judge, "BYE_S", 60)

    def run(
        source,
        *,
        profile="test",
        task=None,
        limits=PATIENT,
        grace_s=60,
        backend=isolating,
        observe=quiet,
        **changes,
    ):
        monkeypatch.setattr(evaluation, "GRACE_S", grace_s)
        task = limited(task or find_task("toy"), profile, limits)
        data, manifest = task.prepare(profile, tmp_path / "data", quiet)
        values = {"split": "search", "audit_seed": "a1b2", "training_seed": 3, **changes}
        request = Request(
            task=task,
            profile=profile,
            files={"model.py": source},
            data=data,
            manifest=manifest,
            backend=backend,
            **values,
        )
        evaluated = evaluate(request, observe=observe)
        run.log.write_bytes(evaluated.log)
        return evaluated.score

    run.log = tmp_path / "log"
    run.data = tmp_path / "data"
    return run


@pytest.fixture
def in_process(monkeypatch):
    """Parse sources in this process. Other tests start one for each, which is slower."""

    def look_into(text):
        printed = io.StringIO()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
        with redirect_stdout(printed):
            source.main()
        return json.loads(printed.getvalue())

    monkeypatch.setattr(submission, "_look_into", look_into)
