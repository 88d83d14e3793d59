"""A judge of toy submissions without processes, for tests of what a search does with scores."""

import numpy as np

from harness.base.errors import Cancelled
from scorers.evaluate import _Attempt, _Outcome, _score
from scorers.gpu_monitor import GpuMonitor
from scorers.judge import Verdict
from scorers.request import Evaluated
from scorers.score import Reason


class QuickJudge:
    """Replaces ``local.judge``. Jobs with labels in ``held`` train until they are cancelled."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.cancelled: list[str] = []

    def __call__(self, evaluation, request):
        observe, cancel = evaluation.observe, evaluation.stopped
        observe("training", {"limit_s": 20.0})
        label = evaluation.job.label
        if label in self.held:
            assert cancel.wait(60), "it was never cancelled"
            self.cancelled.append(label)
        if cancel.is_set():
            raise Cancelled("stopped")
        folder = request.data / request.split
        tokens, labels = (np.load(folder / f"{name}.npy") for name in ("tokens", "labels"))
        observe("serving", {"batches": 1})
        module: dict = {}
        try:
            exec(compile(request.files["model.py"], "model.py", "exec"), module)
            right = float((module["predict"](tokens).argmax(1) == labels).mean())
            verdict = Verdict(right, 0.01, (), None, "", {}, 0.1, 0.1, 0.1)
            outcome = _Outcome(verdict)
        except Exception as error:
            outcome = _Outcome(None, Reason.RUNTIME_ERROR, str(error))
        attempt = _Attempt(request, observe, cancel, GpuMonitor(()))
        return Evaluated(_score(request, outcome, attempt, 0.3), b"")
