"""The interface of executors: the search hands in jobs and gets evaluations under way.

All evaluations go through it. ``harness.search.local`` implements it for this machine.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from harness.core.asked import Asked
from harness.core.jobs import Evaluation, JobSpec, ObserveJobs, Place
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
        observe: ObserveJobs,
    ) -> Place:
        """Find where a request's evaluations can run, and test that place before money is spent.

        ``trusted``: the submissions are the user's own. ``hardware``: the hardware that a run began
        on, which is used again if it is there. ``observe`` is called with ``waiting`` and
        ``warning``, each with a ``message``. Raises ConfigError with a remedy, and
        InfrastructureError where the test fails.
        """
        ...

    def submit(self, jobs: Sequence[JobSpec], observe: ObserveJobs) -> list[Evaluation]:
        """Begin jobs; return their evaluations in order. Each has its own score, log and end.

        A GPU is held only while a job is evaluated; the time that a job waits for a GPU is in
        ``Evaluation.queued_s``. Jobs with the same ``batch_key`` that wait at the same time may be
        trained together. Faults of the harness or machine are retried. A job ends with
        InfrastructureError or JudgeError if retries do not help, with ConfigError if its task,
        data, scorer, key or image are not as expected, with Cancelled after ``Evaluation.stop``.
        """
        ...

    def close(self) -> None:
        """Stop all evaluations; return when none of their processes is alive. Idempotent."""
        ...
