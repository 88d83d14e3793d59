"""One evaluation of a toy submission by the real judge in a real sandbox."""

import pytest

from scorers.evaluate import Request, evaluate
from tasks.spec import find_task


@pytest.fixture
def score_toy(tmp_path, isolating):
    """Return a function that scores the source of a toy ``model.py``."""

    def run(source: str, *, profile: str = "test", task=None, backend=isolating, **changes):
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
        return evaluate(request, log=tmp_path / "log")

    run.log = tmp_path / "log"
    run.data = tmp_path / "data"
    return run
