"""Judges architectures: trains them together as proxies, and makes a Score of each.

No code of a submission runs: it is a list of names, which is read here (``tasks.architecture``) and
trained by our own code in a process of its own (``scorers.proxies.worker``). That process knows the
hidden rows; the judge's does not import torch.
"""

import atexit
import os
import select
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import exp, inf, isfinite, log, sqrt
from sys import float_info
from typing import Any

from pydantic import ValidationError

from harness.base.errors import Cancelled, HarnessError, InfrastructureError, JudgeError
from harness.base.text import clean
from scorers import child, conditions
from scorers.gpu_monitor import GpuMonitor
from scorers.proxies.protocol import REPORT, Done, Failed, Measured, ProxyJob, Step
from scorers.request import Evaluated, Request, Trial
from scorers.score import GpuRecord, Reason, Score
from scorers.submission import Rejected, architecture_of, hash_files, read
from tasks.shared import SUFFIX

MOST_TOGETHER = 32
"""Candidates that are trained at once: more are hardly faster, and need more memory."""

POLL_S = 0.2
SILENT_S = 900.0
"""How long a worker may say nothing: compiling for a GPU takes a minute or two."""

HASH_DIGITS = 12

SCORED = {
    "token_accuracy": ("accuracy", "row_error"),
    "cross_entropy": ("loss", "loss_error"),
}
"""By metric: what is scored of each part (a field of ``Measured``), and its standard error."""


class NoMemory(InfrastructureError):
    """There was not enough memory to train some candidates together."""


def train_together(trials: Sequence[Trial]) -> list[Evaluated | HarnessError]:
    """Train and score candidates together; return a result or error for each, in order."""
    ends: dict[int, Evaluated | HarnessError] = {}
    sound = []
    for number, trial in enumerate(trials):
        try:
            read(trial.request.task, trial.request.profile, trial.request.files)
            sound.append(number)
        except Rejected as rejected:
            ends[number] = Evaluated(_rejected(trial.request, rejected))
    for first in range(0, len(sound), MOST_TOGETHER):
        group = sound[first : first + MOST_TOGETHER]
        ends |= dict(zip(group, _as_fits([trials[n] for n in group]), strict=True))
    return [ends[number] for number in range(len(trials))]


def _as_fits(trials: Sequence[Trial]) -> Sequence[Evaluated | HarnessError]:
    """Train candidates together; where memory is short, one half after the other."""
    try:
        return _judged(trials)
    except NoMemory as error:
        if len(trials) == 1:
            return [error]
    half = len(trials) // 2
    return [*_as_fits(trials[:half]), *_as_fits(trials[half:])]


def _judged(trials: Sequence[Trial]) -> Sequence[Evaluated | HarnessError]:
    """Train candidates that have been read; return the end of each, in order. Raises NoMemory."""
    requests = [trial.request for trial in trials]
    limit_s = requests[0].task.profile(requests[0].profile).limits.train_s
    for trial in trials:
        trial.observe("training", {"limit_s": limit_s})

    def say(step: Step) -> None:
        for trial in trials:
            trial.observe("progress", {"step": step.step, "total": step.total, "loss": None})

    began = time.monotonic()
    monitor = GpuMonitor(requests[0].gpus)
    job = _job(requests)
    try:
        need_compiler(job)
        with monitor, _worker() as worker:
            done = worker.train(job, say, lambda: all(trial.cancel.is_set() for trial in trials))
    except NoMemory:
        raise
    except HarnessError as error:
        return [error] * len(trials)
    spent_s = time.monotonic() - began
    ends: list[Evaluated | HarnessError] = []
    for number, trial in enumerate(trials):
        if trial.cancel.is_set():
            ends.append(Cancelled("Stopped while it was trained."))
            continue
        parts = {name: found[number] for name, found in done.results.items()}
        others = [r for n, r in enumerate(requests) if n != number]
        score = _trained(trial.request, parts, others, spent_s, monitor.records)
        text = _log(job.architectures[number], parts, len(others), _entropy(trial.request))
        ends.append(Evaluated(score, text.encode()))
    return ends


def need_compiler(job: ProxyJob) -> None:
    """Raise InfrastructureError if a job needs a C compiler, as Triton does, and there is none."""
    triton = job.settings.get("kernels") == "triton"
    if triton and not os.environ.get("CC") and not any(map(shutil.which, ("clang", "gcc"))):
        raise InfrastructureError(
            "The proxies cannot be trained by our own kernels.",
            cause="Triton compiles them with a C compiler, and there is no gcc or clang here",
            remedy="apt-get install gcc libc6-dev python3-dev",
        )


def _job(requests: Sequence[Request]) -> ProxyJob:
    first = requests[0]
    profile = first.task.profile(first.profile)
    return ProxyJob(
        architectures=tuple(architecture_of(r.task, r.profile, r.files) for r in requests),
        seeds=tuple(r.training_seed for r in requests),
        train=str(first.data / "train"),
        held_out=str(first.hidden),
        shape=first.manifest.shape,
        settings=profile.settings,
        gpu=first.gpus[0] if first.gpus else "",
        threads=profile.limits.cpus,
    )


def _trained(
    request: Request,
    parts: dict[str, Measured],
    others: Sequence[Request],
    spent_s: float,
    gpus: tuple[GpuRecord, ...],
) -> Score:
    """Return the score of a training: the mean over parts of what the metric scores (``SCORED``).

    Its standard error is of the rows alone. Time is shared evenly among those trained together.
    """
    scored, its_error = SCORED[request.task.definition.metric]
    mean = _mean(parts, scored)
    error = sqrt(sum(getattr(part, its_error) ** 2 for part in parts.values())) / len(parts)
    diverged = [name for name, part in parts.items() if not isfinite(part.loss)]
    measures = _measures(parts, scored, _entropy(request))
    share_s = round(spent_s / (len(others) + 1), 3)
    return _score(
        request,
        gpus,
        valid=not diverged,
        score=None if diverged else mean,
        measured=mean if isfinite(mean) else None,
        standard_error=None if diverged else error,
        reason=Reason.NOT_FINITE if diverged else None,
        message=f"Its training diverged on {', '.join(diverged)}: the loss is not finite."
        if diverged
        else "",
        measures={name: round(value, 6) for name, value in measures.items() if isfinite(value)},
        companions=tuple(hash_files(other.files)[:HASH_DIGITS] for other in others),
        seconds={"train": share_s, "total": share_s, "together": round(spent_s, 3)},
    )


def _measures(parts: dict[str, Measured], scored: str, entropy: float | None) -> dict[str, float]:
    """Return what was measured besides the score, some of it perhaps not finite."""
    found = {"macro": _mean(parts, "macro")}
    if scored == "loss":
        loss = _mean(parts, scored)
        found |= {"accuracy": _mean(parts, "accuracy"), "perplexity": _perplexity(loss)}
        found |= {} if entropy is None else {"excess": loss - entropy}
    for name, part in parts.items():
        of_part = {what: getattr(part, what) for what in ("accuracy", "macro", "loss")}
        found |= {name: of_part.pop(scored)}
        found |= {f"{name}.{what}": value for what, value in of_part.items()}
    return found


def _mean(parts: dict[str, Measured], what: str) -> float:
    found: list[float] = [getattr(part, what) for part in parts.values()]
    return sum(found) / len(found)


def _perplexity(loss: float) -> float:
    """Return e to the loss, or infinity."""
    return exp(loss) if loss < log(float_info.max) else inf


def _entropy(request: Request) -> float | None:
    """Return the loss of the true model on the withheld rows, if the data's maker knew it."""
    return request.manifest.baselines.get(f"entropy{SUFFIX[request.split]}")


def _rejected(request: Request, rejected: Rejected) -> Score:
    return _score(
        request,
        (),
        valid=False,
        score=None,
        standard_error=None,
        reason=rejected.reason,
        message=clean(rejected.message),
        audits=rejected.audits,
        seconds={"total": 0.0},
    )


def _score(request: Request, gpus: tuple[GpuRecord, ...], **found: Any) -> Score:  # noqa: ANN401
    """Return a score with what was ``found``. A submission that does not run claims nothing."""
    return Score(
        metric=request.task.definition.metric,
        rows=request.manifest.rows[request.split],
        claim={},
        submission=hash_files(request.files),
        conditions=conditions.of(request, gpus=gpus),
        peak_memory_mb=None,
        **{"audits": (), **found},
    )


def _log(
    layers: Sequence[str], parts: dict[str, Measured], others: int, entropy: float | None
) -> str:
    """Return what an author may learn of the training: each part's result and loss curve."""
    lines = [f"{' '.join(layers)}: trained by the judge's own code, together with {others} others"]
    for name, part in parts.items():
        loss = f"{part.loss:.3f} nats" if isfinite(part.loss) else "not finite"
        lines.append(f"{name}: accuracy {part.accuracy:.4f} (macro {part.macro:.4f}), loss {loss}")
        curve = ", ".join(f"{step}: {loss:.3f}" for step, loss in part.curve)
        lines.append(f"  training loss by step: {curve}")
    if entropy is not None:
        lines.append(f"the best possible loss, of the source itself: {entropy:.4f} nats")
    return "\n".join(lines) + "\n"


PROGRAM = ("-m", "scorers.proxies.worker")
"""By name: the module imports torch, and this process does without."""


class _Worker:
    """A process that trains one job after the other (``scorers.proxies.worker``)."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the worker runs
        self._process = child.start(*PROGRAM, env=os.environ, errors=self._errors)
        self._read = b""

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def train(
        self, job: ProxyJob, say: Callable[[Step], None], stopped: Callable[[], bool]
    ) -> Done:
        """Return the results of a job. Raises Cancelled, InfrastructureError, JudgeError."""
        assert self._process.stdin is not None  # noqa: S101
        try:
            self._process.stdin.write(job.model_dump_json().encode() + b"\n")
        except OSError:
            raise self._death() from None
        while True:
            report = self._report(stopped)
            if isinstance(report, Done):
                return report
            if isinstance(report, Failed):
                if report.memory:
                    raise NoMemory(
                        "There is not enough memory to train one architecture.",
                        cause=clean(report.message, 600),
                        remedy="a machine, or a GPU, with more memory",
                    )
                raise JudgeError(
                    "The proxies could not be trained.",
                    cause=clean(report.message, 600),
                    remedy="it is judged again by harness resume RUN; please report it",
                )
            say(report)

    def _report(self, stopped: Callable[[], bool]) -> Step | Done | Failed:
        assert self._process.stdout is not None  # noqa: S101
        deadline = time.monotonic() + SILENT_S
        poll = select.poll()  # select() cannot take descriptors above 1023
        poll.register(self._process.stdout, select.POLLIN)
        while b"\n" not in self._read:
            if stopped():
                raise Cancelled("Stopped while it was trained.")
            if time.monotonic() > deadline:
                raise JudgeError(f"The training said nothing for {SILENT_S:g} s.")
            if poll.poll(1000 * POLL_S):
                piece = os.read(self._process.stdout.fileno(), 1 << 16)
                if not piece:
                    raise self._death()
                self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        try:
            return REPORT.validate_json(line)
        except ValidationError as error:
            raise JudgeError("The training reported nonsense.", cause=str(error)) from None

    def _death(self) -> InfrastructureError:
        code = self._process.wait()
        said = clean(child.last_words(self._errors), 600)
        return InfrastructureError(
            "The process that trains proxies died.",
            cause=f"exit code {code}: {said.splitlines()[-1] if said else 'it said nothing'}",
            remedy="harness doctor shows what is missing here",
        )

    def close(self) -> None:
        """End the process; its training ends with it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                pipe.close()


_idle: list[_Worker] = []
_lock = threading.Lock()


@contextmanager
def _worker() -> Iterator[_Worker]:
    """Yield a worker: an idle one if there is one. After any error it is ended, not used again."""
    with _lock:
        worker = _idle.pop() if _idle else None
    if worker is not None and not worker.alive:
        worker.close()
        worker = None
    worker = worker or _Worker()
    try:
        yield worker
    except BaseException:
        worker.close()
        raise
    with _lock:
        _idle.append(worker)


@atexit.register
def _close_idle() -> None:
    with _lock:
        while _idle:
            _idle.pop().close()
