"""The local executor: evaluations run in threads of this process, each in a sandbox.

An evaluation leases a GPU, where it needs one, only while it runs. It decides nothing about nodes
(``harness.search.loop``), and how a submission is scored is in ``scorers``.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any

from harness.base.errors import Cancelled, HarnessError, JudgeError
from harness.base.registry import load
from harness.base.watching import unbreakable
from harness.core.asked import Asked
from harness.core.jobs import Evaluation, JobSpec, ObserveJobs, Place, waiting_reporter
from harness.search.host import Host, find_host
from sandboxes.gpu_pool import GpuPool, Lease
from scorers.request import Evaluated, Request, Together, Trial
from scorers.self_test import evaluate
from tasks.definition import Progress
from tasks.kinds import KINDS

RETRIES = 2
"""How often an evaluation is retried after a fault of the harness or the machine."""

JUDGE_RETRIES = 1
"""How often it is retried after a JudgeError: mostly that is a bug of ours, and fails again."""

BACK_OFF_S = 2.0
UNBEGUN = "Stopped before it began."
POLL_S = 0.2
"""Seconds after which a thread that waits for its turn looks again for stopped evaluations."""


class LocalEvaluator:
    """Evaluates up to ``slots`` jobs at once on this machine, fewer if it has fewer GPUs.

    Only one thread of a run at a time waits in the queue for GPUs, so that several runs take turns
    however many slots each of them has.
    """

    name = "local"

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="evaluate")
        self._hosts: dict[tuple[object, ...], Host] = {}
        self._waiting: list[Evaluation] = []
        self._under_way: set[Evaluation] = set()
        self._lock, self._turn = threading.Lock(), threading.Lock()

    def get_ready(
        self,
        asked: Asked,
        *,
        trusted: bool,
        hardware: Mapping[str, str | int] | None,
        progress: Progress,
        observe: ObserveJobs,
    ) -> Place:
        """Prepare data, choose sandbox and GPUs, and test the sandbox; see ``Evaluator``."""
        progress, observe = unbreakable(progress), unbreakable(observe)
        host = find_host(asked, trusted=trusted, hardware=hardware, progress=progress)
        for text in filter(None, (host.warning, self._core_warning(host))):
            observe("warning", "", {"message": text})
        host.test(waiting_reporter(observe))
        place = host.place
        self._hosts[_key(asked, place.sandbox)] = host
        return place

    def submit(self, jobs: Sequence[JobSpec], observe: ObserveJobs) -> list[Evaluation]:
        """Begin jobs; see ``Evaluator``."""
        observe = unbreakable(observe)
        begun = [Evaluation(job, observe) for job in jobs]
        with self._lock:
            self._waiting += begun
            self._under_way.update(begun)
        for evaluation in begun:
            evaluation.add_done_callback(self._ended)
            host = self._hosts.get(_key(evaluation.job, evaluation.job.sandbox))
            if host is not None and host.gpus is not None:
                evaluation.observe("queued", {})
            self._threads.submit(self._work)
        return begun

    def close(self) -> None:
        """Stop all evaluations; return when none of their processes is alive. Idempotent."""
        with self._lock:
            under_way = list(self._under_way)
        for evaluation in under_way:
            evaluation.stop()
        # Do not rely on the threads: Ctrl-C while one starts leaves a pool that does not know it.
        self._end_stopped()
        wait(under_way)
        self._threads.shutdown(wait=True)

    def _ended(self, evaluation: Any) -> None:  # noqa: ANN401 (typed as any future)
        with self._lock:
            self._under_way.discard(evaluation)

    def _work(self) -> None:
        """Take the first waiting evaluation to its end, and those that are trained with it."""
        batch, causes, attempt = list[Evaluation](), list[str](), 0
        while True:
            ends = self._ends(batch, causes)
            again = []
            for evaluation, end in zip(batch, ends, strict=True):
                if isinstance(end, Evaluated):
                    evaluation.set_result(end)
                elif attempt < _retries(end) and not evaluation.stopped.is_set():
                    again.append((evaluation, str(end)))
                else:
                    evaluation.set_exception(end)
            if not again:
                return
            batch, causes = [evaluation for evaluation, _ in again], [cause for _, cause in again]
            batch[0].stopped.wait(BACK_OFF_S * 2**attempt)
            attempt += 1

    def _ends(
        self, batch: list[Evaluation], causes: Sequence[str]
    ) -> Sequence[Evaluated | BaseException]:
        """Evaluate a batch once; return the result or error of each, in order. Never raises.

        ``batch``: evaluations to retry, with the ``causes`` of their failures; or an empty list,
        which is filled with waiting evaluations.
        """
        try:
            for evaluation, cause in zip(batch, causes, strict=True):
                evaluation.wait_again()
                evaluation.observe("retry", {"cause": cause})
            with self._place(batch) as requests:
                for evaluation in batch:
                    evaluation.begin()
                if not requests:
                    return []
                together = _together(requests[0])
                if not together:
                    return [judge(batch[0], requests[0])]
                return _judge_together(load(together), batch, requests)
        except BaseException as error:  # noqa: BLE001 (raised where the result is read)
            return [_judge_error(evaluation, error) for evaluation in batch]

    @contextmanager
    def _place(self, batch: list[Evaluation]) -> Iterator[list[Request]]:
        """Wait for a place to evaluate a batch, a GPU or CPU cores, and hold it.

        While a batch waits for a GPU, or is trained together on CPU cores, the run's other
        evaluations wait: so they gather to be trained together, and several runs take turns.
        """
        with ExitStack() as held, ExitStack() as turn:
            turn.enter_context(self._turn_to_lease())
            fresh = not batch
            batch += self._next() if fresh else ()
            if not batch:
                yield []
                return
            host = self._host(batch[0].job)
            host.check(batch[0].job)
            gpus: tuple[str, ...] = ()
            if host.gpus is not None:
                gpus = held.enter_context(self._lease(host.gpus, batch)).uuids
            together = _together(host.template)
            if fresh and together:
                batch += self._companions(batch[0].job.batch_key)
            if gpus or not together:
                turn.close()
            if all(evaluation.stopped.is_set() for evaluation in batch):
                raise Cancelled(UNBEGUN)
            yield [host.request(evaluation.job, gpus) for evaluation in batch]

    @contextmanager
    def _turn_to_lease(self) -> Iterator[None]:
        while not self._turn.acquire(timeout=POLL_S):
            self._end_stopped()
        try:
            yield
        finally:
            self._turn.release()

    def _lease(self, gpus: GpuPool, batch: Sequence[Evaluation]) -> Lease:
        def stopped() -> bool:
            self._end_stopped()
            return all(evaluation.stopped.is_set() for evaluation in batch)

        def say(line: str) -> None:
            batch[0].observe("waiting", {"message": line})

        return gpus.lease(1, on_wait=say, stopped=stopped)

    def _next(self) -> list[Evaluation]:
        """Remove the first waiting evaluation from the queue; return it in a list, if any."""
        self._end_stopped()
        with self._lock:
            first = self._waiting[:1]
            del self._waiting[:1]
        return first

    def _companions(self, batch_key: str) -> list[Evaluation]:
        """Remove from the queue all evaluations with that key: they can be trained together."""
        with self._lock:
            found = [one for one in self._waiting if one.job.batch_key == batch_key]
            self._waiting = [one for one in self._waiting if one not in found]
        return found

    def _end_stopped(self) -> None:
        """End the evaluations that were stopped while they waited, with Cancelled."""
        with self._lock:
            stopped = [one for one in self._waiting if one.stopped.is_set()]
            self._waiting = [one for one in self._waiting if one not in stopped]
        for evaluation in stopped:
            evaluation.set_exception(Cancelled(UNBEGUN))

    def _host(self, job: JobSpec) -> Host:
        """Return this machine prepared for a job; reuse what was prepared for the same request."""
        key = _key(job, job.sandbox)
        if key not in self._hosts:
            host = find_host(job, trusted=False, hardware=None, progress=_quiet)
            host.test(_quiet)
            self._hosts[key] = host
        return self._hosts[key]

    def _core_warning(self, host: Host) -> str | None:
        """Return a warning where evaluations would slow each other down."""
        limits = host.template.task.profile(host.template.profile).limits
        if host.gpus is None and host.template.task.paired:
            return None  # they are trained together, and those that come later wait
        at_once = min(self._slots, len(host.gpus.gpus) if host.gpus else self._slots)
        wanted, here = at_once * limits.cpus, len(os.sched_getaffinity(0))
        if at_once == 1 or wanted <= here:
            return None
        return (
            f"{at_once} evaluations at once may use {wanted} cores and there are {here}: each "
            "trains slower than alone, and time limits are by the clock."
        )


def judge(evaluation: Evaluation, request: Request) -> Evaluated:
    """Evaluate one job. Raises InfrastructureError, JudgeError, ConfigError, Cancelled."""
    return evaluate(request, observe=evaluation.observe, cancel=evaluation.stopped)


def _together(request: Request) -> str:
    """Return the address of the function that trains several such submissions at once, or ""."""
    return KINDS.find(request.task.definition.kind).together


def _judge_together(
    together: Together, batch: Sequence[Evaluation], requests: Sequence[Request]
) -> Sequence[Evaluated | HarnessError]:
    ends = together([Trial(r, e.observe, e.stopped) for e, r in zip(batch, requests, strict=True)])
    if len(ends) != len(batch):
        raise JudgeError(f"{len(batch)} submissions were judged, and {len(ends)} answers came.")
    return ends


def _retries(end: BaseException) -> int:
    if isinstance(end, JudgeError):
        return JUDGE_RETRIES
    return RETRIES if isinstance(end, HarnessError) and end.retryable else 0


def _judge_error(evaluation: Evaluation, error: BaseException) -> BaseException:
    """Return the error that an evaluation ends with.

    An unexpected exception becomes a JudgeError: it is our fault, not the submission's.
    """
    if isinstance(error, HarnessError) or not isinstance(error, Exception):
        return error
    found = JudgeError(
        f"The judge failed on {evaluation.job.label}.",
        cause=f"{type(error).__name__}: {error}",
        remedy="it is judged again by harness resume RUN; please report it",
    )
    found.__cause__ = error
    return found


def _key(asked: Asked | JobSpec, sandbox: str) -> tuple[object, ...]:
    """Return the values that decide how this machine is prepared."""
    return asked.task, asked.profile, tuple(sorted(asked.data.items())), sandbox


def _quiet(*_: object) -> None:
    pass
