"""An evaluation as plain data, so that it can run elsewhere, and the future of its result.

The executors that run it are in ``harness.search``.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.base.digests import digest
from harness.base.errors import JudgeError
from harness.base.strict import Strict
from harness.core.asked import Asked
from scorers.request import Evaluated
from scorers.score import Score
from scorers.submission import hash_files

ObserveJobs = Callable[[str, str, dict[str, Any]], None]
"""Called as ``observe(what, label, details)`` for screens and logs; from several threads."""


def waiting_reporter(observe: ObserveJobs) -> Callable[[str], None]:
    """Return a function that reports to an observer, in words, what is being waited for."""
    return lambda line: observe("waiting", "", {"message": line})


class Expected(Strict):
    """What a job's names resolve to where it was made; where they resolve otherwise, it fails.

    Hashes of task, data and scorer; the fingerprint of the key that hidden rows were drawn with,
    and the digest of the sandbox's image: either is empty if there is no key or image.
    """

    task_hash: str
    data_hash: str
    hidden_key: str
    scorer: str
    image: str


class JobSpec(Strict):
    """One evaluation, and all that decides its result. ``label`` names it in screens and errors.

    ``data`` replaces values of the profile's ``data``. ``strict``: the exported model is scored,
    in fresh processes that share no memory.
    """

    format: Literal[1] = 1
    label: str
    task: str
    profile: str
    data: dict[str, str]
    sandbox: str
    split: Literal["search", "test"]
    files: dict[str, str]
    training_seed: Annotated[int, Field(ge=0)]
    audit_seed: str
    strict: bool = False
    expected: Expected

    @property
    def id(self) -> str:
        """A digest of everything but the label: the same for jobs that ask for the same."""
        return self._digest_without("label")

    @property
    def batch_key(self) -> str:
        """A digest of what jobs must have in common to be trained together."""
        return self._digest_without("label", "files", "training_seed", "audit_seed")

    def _digest_without(self, *names: str) -> str:
        return digest(json.dumps(self.model_dump(exclude=set(names)), sort_keys=True))

    def asks_for(self, score: Score) -> bool:
        """Return whether a score is of these files, split and seeds."""
        made = score.conditions
        return (score.submission, made.split, made.training_seed, made.audit_seed) == (
            hash_files(self.files), self.split, self.training_seed, self.audit_seed
        )  # fmt: skip

    def made_otherwise(self, score: Score) -> str:
        """Return in words where a score's conditions differ from those expected; "" if nowhere."""
        expected = {"profile": self.profile, "sandbox": self.sandbox, **dict(self.expected)}
        made = dict(score.conditions)
        return differing({name: v for name, v in expected.items() if name in made}, made)


def differing(expected: Mapping[str, object], found: Mapping[str, object]) -> str:
    """Return in words which values that were found are not as expected; "" if all are."""
    return "; ".join(
        f"{name}: expected {value!r}, found {found[name]!r}"
        for name, value in expected.items()
        if found[name] != value
    )


class Place(Strict):
    """Where the evaluations of a request run, and what its names resolve to there.

    ``hardware`` and ``versions`` hold for every evaluation (``scorers.score.Conditions``).
    """

    sandbox: str
    data: str
    expected: Expected
    hardware: dict[str, str | int]
    versions: dict[str, str]

    def job(
        self,
        asked: Asked,
        label: str,
        files: Mapping[str, str],
        *,
        split: Literal["search", "test"],
        training_seed: int,
        audit_seed: str,
        strict: bool = False,
    ) -> JobSpec:
        """Return one evaluation of a request."""
        return JobSpec(
            label=label,
            task=asked.task,
            profile=asked.profile,
            data=asked.data,
            sandbox=self.sandbox,
            split=split,
            files=dict(files),
            training_seed=training_seed,
            audit_seed=audit_seed,
            strict=strict,
            expected=self.expected,
        )


class Evaluation(Future[Evaluated]):
    """A job under way: a future that an executor completes.

    A result that belongs to another job is not accepted: the future then ends with JudgeError.
    """

    def __init__(self, job: JobSpec, observe: ObserveJobs) -> None:
        super().__init__()
        self.job = job
        self.stopped = threading.Event()
        """Set by ``stop``: the executor then stops the job, and the future ends with Cancelled."""
        self._tell = observe
        self._waited_s, self._waits_since = 0.0, time.monotonic()

    def stop(self) -> None:
        """Ask to stop this job only. Idempotent; the job has ended once the future is done."""
        self.stopped.set()

    def observe(self, what: str, details: dict[str, Any]) -> None:
        """Report to the observer what happens to this job."""
        self._tell(what, self.job.label, details)

    @property
    def queued_s(self) -> float:
        """Seconds that it has waited so far for a place to run; free unless waiting is charged."""
        return self._waited_s + max(0.0, time.monotonic() - self._waits_since)

    def begin(self) -> None:
        """Note that the job has a place to run and no longer waits."""
        self._waited_s, self._waits_since = round(self.queued_s, 3), float("inf")

    def wait_again(self) -> None:
        """Note that the job is to be tried again and waits for a place once more."""
        self._waits_since = time.monotonic()

    def set_result(self, result: Evaluated) -> None:
        """End the future with a result, or with JudgeError if it belongs to another job."""
        job, score = self.job, result.score
        wrong = job.made_otherwise(score) if job.asks_for(score) else "other files, split or seeds"
        if wrong:
            self.set_exception(
                JudgeError(
                    f"What came back for {job.label} is the answer to another question.",
                    cause=wrong,
                    remedy="begin anew where task, data or harness were changed meanwhile",
                )
            )
        else:
            super().set_result(result)
