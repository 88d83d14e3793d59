"""One evaluation of a toy submission by the real judge in a real sandbox."""

import pytest

from scorers.evaluate import Request, evaluate
from tasks.spec import find_task


def quiet(*_):
    """Watch nothing."""


@pytest.fixture
def score_toy(tmp_path, isolating):
    """Return a function that scores the source of a toy ``model.py``."""

    def run(source, *, profile="test", task=None, backend=isolating, observe=quiet, **changes):
        task = task or find_task("toy")
        data, manifest = task.prepare(profile, tmp_path / "data", lambda *_: None)
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
        return evaluate(request, log=tmp_path / "log", observe=observe)

    run.log = tmp_path / "log"
    run.data = tmp_path / "data"
    return run
