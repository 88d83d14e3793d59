"""The only seam through which work leaves the search: submit a node, get a future Score."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Protocol

from harness.base.errors import HarnessError, JudgeError
from scorers.request import Request
from scorers.score import Score
from scorers.self_test import evaluate

RETRIES = 2
"""How often an evaluation is tried again when our side of it broke."""

JUDGED_AGAIN = 1
"""The same where it was the judge: mostly that is a fault of ours, and fails again."""

BACK_OFF_S = 2.0

Observe = Callable[[str, str, dict[str, Any]], None]
"""Called as ``observe(what, label, details)`` for whoever watches; from several threads."""


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation. ``label`` names it on screen and in errors; ``log`` is its output's file.

    ``strict``: the exported model is scored, in fresh processes that share no memory.
    """

    label: str
    files: Mapping[str, str]
    split: Literal["search", "test"]
    training_seed: int
    audit_seed: str
    log: Path | None
    strict: bool = False


class Evaluator(Protocol):
    """Where evaluations run: threads here, another machine later."""

    def submit(self, job: Job) -> "Future[Score]":
        """Start an evaluation."""
        ...

    def abandon(self) -> None:
        """Stop what runs: its futures raise Cancelled. What is submitted later runs."""
        ...

    def cancel(self) -> None:
        """Stop all that runs; returns when nothing of it is alive."""
        ...


class LocalEvaluator:
    """Evaluates in threads of this process; each evaluation has its own sandbox."""

    def __init__(
        self,
        make_request: Callable[[Job, int], Request],
        *,
        workers: int,
        observe: Observe,
    ) -> None:
        self._make_request = make_request
        self._observe = observe
        self._cancel = threading.Event()
        # Which worker one is decides whose GPU one has: no two evaluations share a number.
        self._idle: SimpleQueue[int] = SimpleQueue()
        for worker in range(workers):
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="evaluate")

    def submit(self, job: Job) -> "Future[Score]":
        """Start an evaluation."""
        return self._threads.submit(self._evaluate, job, self._cancel)

    def abandon(self) -> None:
        """Stop what runs: its futures raise Cancelled. What is submitted later runs."""
        before, self._cancel = self._cancel, threading.Event()
        before.set()

    def cancel(self) -> None:
        """Stop all that runs; returns when nothing of it is alive."""
        self._cancel.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _evaluate(self, job: Job, cancel: threading.Event) -> Score:
        for attempt in range(RETRIES + 1):
            try:
                return self._once(job, cancel)
            except HarnessError as error:
                judge = isinstance(error, JudgeError)
                retries = JUDGED_AGAIN if judge else RETRIES * error.retryable
                if attempt >= retries or cancel.is_set():
                    raise
                self._observe("retry", job.label, {"cause": str(error)})
                cancel.wait(BACK_OFF_S * 2**attempt)
        raise AssertionError("unreachable")

    def _once(self, job: Job, cancel: threading.Event) -> Score:
        worker = self._idle.get()
        try:
            return evaluate(
                self._make_request(job, worker),
                log=job.log,
                observe=lambda what, details: self._observe(what, job.label, details),
                cancel=cancel,
            )
        except HarnessError:
            raise
        except Exception as error:
            # Whatever else happens in the judge is ours, not the submission's.
            raise JudgeError(
                f"The judge failed on {job.label}.",
                cause=f"{type(error).__name__}: {error}",
                remedy="it is judged again by harness resume RUN; please report it",
            ) from error
        finally:
            self._idle.put(worker)
