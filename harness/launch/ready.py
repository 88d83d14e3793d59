"""What an evaluation needs, made ready: data, a tested sandbox, and GPUs."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import ConfigError
from harness.base.faults import explain
from harness.base.paths import data_root
from harness.base.watching import unbreakable
from harness.core.asked import Asked
from harness.launch.garbage import collect
from harness.search.evaluator import Job, LocalEvaluator, Observe
from sandboxes import registry
from sandboxes.base import Backend
from sandboxes.gpu_pool import GpuPool, Lease
from scorers import conditions, self_test
from scorers.request import Request
from scorers.score import Score
from tasks.definition import Manifest, Progress
from tasks.spec import Task


@dataclass(frozen=True, slots=True)
class Ready:
    """A task whose data are prepared, and the backend to run submissions in."""

    task: Task
    profile: str
    data: Path
    manifest: Manifest
    backend: Backend
    lease: Lease
    """One GPU for each worker, ours until ``close``; empty where it computes on the CPU."""
    workers: int
    queued_s: float = 0.0
    """How long it waited for GPUs."""

    @property
    def hardware(self) -> dict[str, str | int]:
        """What an evaluation has: one GPU, however many are leased."""
        return conditions.hardware(self.lease.uuids[:1])

    def close(self) -> None:
        """Give the GPUs back. Idempotent."""
        self.lease.close()

    def request(self, job: Job, worker: int = 0) -> Request:
        """Return the evaluation request of a job, on the GPU of that worker."""
        return Request(
            task=self.task,
            profile=self.profile,
            split=job.split,
            files=job.files,
            data=self.data,
            manifest=self.manifest,
            training_seed=job.training_seed,
            audit_seed=job.audit_seed,
            backend=self.backend,
            gpus=self.lease.uuids[worker : worker + 1],
            strict=job.strict,
        )

    def evaluator(self, observe: Observe) -> LocalEvaluator:
        """Return where the jobs of a run are evaluated, one on each GPU; ``cancel`` it."""
        return LocalEvaluator(self.request, workers=self.workers, observe=observe)

    def score(self, job: Job, observe: Observe) -> Score:
        """Evaluate one job as a search would, tried again where our side breaks.

        Raises what the evaluator raises; Ctrl-C ends it, and nothing of it is alive then.
        """
        evaluator = self.evaluator(unbreakable(observe))
        try:
            return evaluator.submit(job).result()
        finally:
            evaluator.cancel()


def get_ready(
    task: Task, asked: Asked, *, trusted: bool, progress: Progress, observe: Observe
) -> Ready:
    """Choose a request's sandbox, prepare its data, wait for GPUs, and test it all.

    ``close`` what is returned. Observed are ``waiting`` and ``warning``, each with a ``message``.

    Raises ConfigError with a remedy, and InfrastructureError where the sandbox fails its test: so
    nothing is paid, and no submission blamed, for what is wrong here. No budget runs yet: waiting
    is charged to nobody.
    """
    progress, observe = unbreakable(progress), unbreakable(observe)
    say, pool = teller(observe), GpuPool()
    profile, workers = asked.profile, asked.workers

    wanted = _gpus_wanted(task, profile, workers, pool)
    backend, warning = registry.choose(asked.sandbox, trusted=trusted)
    collect()  # what a killed run left holds memory: its scratch disk is a tmpfs
    try:
        data, manifest = task.prepare(profile, data_root(), progress, asked.data)
    except OSError as error:
        told = explain(error)
        raise type(told)(
            f"The data of {task.name} could not be prepared in {data_root()}.",
            cause=str(error),
            remedy=f"{told.remedy}; or set HARNESS_DATA to another folder",
        ) from error
    # Last: nobody should wait for a GPU that waits for a download.
    began = time.monotonic()
    lease = pool.lease(wanted, on_wait=say)
    queued_s = round(time.monotonic() - began, 3)
    ready = Ready(task, profile, data, manifest, backend, lease, workers, queued_s)
    try:
        for text in filter(None, (warning, _crowded(task, profile, workers))):
            observe("warning", "", {"message": text})
        self_test.require(ready.request(Job("self-test", {}, "search", 0, "", Path())), say=say)
    except BaseException:
        ready.close()
        raise
    return ready


def teller(observe: Observe) -> Callable[[str], None]:
    """Return what tells an observer, in words, what is waited for."""
    return lambda line: observe("waiting", "", {"message": line})


def _gpus_wanted(task: Task, profile: str, workers: int, pool: GpuPool) -> int:
    """Return how many GPUs a profile is to have. Raises ConfigError if it needs more than are."""
    device, here = task.profile(profile).device, len(pool.gpus)
    if device == "cpu" or (device == "any" and not here):
        return 0
    if not here:
        raise ConfigError(
            f"Profile {profile} of {task.name} needs a GPU, and there is none here.",
            cause=pool.reason,
            remedy="--profile smoke, or a machine with a GPU (harness doctor)",
        )
    if here < workers:
        raise ConfigError(
            f"{workers} workers need a GPU each, and there are {here} here.",
            cause=pool.reason,
            remedy=f"{here} workers, or a machine with more GPUs",
        )
    return workers


def _crowded(task: Task, profile: str, workers: int) -> str | None:
    wanted = workers * task.profile(profile).limits.cpus
    here = len(os.sched_getaffinity(0))
    if workers == 1 or wanted <= here:
        return None
    return (
        f"{workers} evaluations at once may use {wanted} cores and there are {here}: "
        "each trains slower than alone, and time limits are by the clock."
    )
