"""The only seam through which work leaves the search: jobs in, evaluations under way out."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from harness.core.asked import Asked
from harness.core.jobs import Evaluation, JobSpec, Observe, Place
from tasks.definition import Progress


class Evaluator(Protocol):
    """An executor at work for one run: it finds a place for each job, and evaluates it there."""

    def get_ready(
        self,
        asked: Asked,
        *,
        trusted: bool,
        hardware: Mapping[str, str | int] | None,
        progress: Progress,
        observe: Observe,
    ) -> Place:
        """Find where the evaluations of a request can run, and test it: nothing is paid before.

        ``trusted``: the submissions are the user's own. ``hardware``: what a run began on, to go on
        with, where there is such. Observed are ``waiting`` and ``warning``, each with a
        ``message``. Raises ConfigError with a remedy, and InfrastructureError where the test fails.
        """
        ...

    def submit(self, jobs: Sequence[JobSpec], observe: Observe) -> list[Evaluation]:
        """Begin jobs, each with a score, a log and an end of its own; return them in order.

        A GPU is held while a job is evaluated, and no longer; what waits for one is in
        ``Evaluation.queued_s``. Those with one ``batch_key`` that wait at the same time may be
        trained together. Our own faults are tried again; what is left of them ends a job:
        InfrastructureError, JudgeError; ConfigError where the names in it stand for other
        things than expected; Cancelled after ``Evaluation.stop``.
        """
        ...

    def close(self) -> None:
        """Stop all that is under way; return when nothing of it is alive. Idempotent."""
        ...
