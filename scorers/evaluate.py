"""One evaluation: a fresh sandbox with the candidate inside, the judge outside, and one Score.

A fault of the submission gives a Score with a reason. A fault on our side is raised as
InfrastructureError or JudgeError; a cancelled evaluation raises Cancelled. How rows are served and
measured is in ``classification`` and ``language``.
"""

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import isfinite
from pathlib import Path
from typing import Any

from harness.base.errors import JudgeError, SandboxLostError
from harness.base.paths import STAGE_PREFIX
from harness.base.registry import load
from harness.base.text import clean
from harness.base.watching import unbreakable
from sandboxes.base import ExecResult, Mount, Process, SandboxSpec
from scorers import claims, conditions
from scorers.candidate import candidate
from scorers.gpu_monitor import GpuMonitor
from scorers.judge import Examiner, Freezing, Refused, ServeLate, Times, Verdict
from scorers.output import Output
from scorers.request import Evaluated, Observe, Request
from scorers.score import Audit, Reason, Score
from scorers.submission import Rejected, hash_files, read
from scorers.wire import Gone, Late, Listener, LogitsBuffer, ProtocolError, Wire
from tasks.kinds import KINDS
from tasks.submissions import SUBMISSIONS, Submission

OUTPUT_LIMIT = 256 << 20
"""Bytes. A submission that prints more than this is stopped: no honest log is so long."""

FROZEN, MODEL = "frozen", "model.pt2"
"""Folder and file name of an exported model."""

POLL_S = 0.5
"""How often a script's output is searched for a line on its training progress."""

GRACE_S = 2.0
"""How long a candidate that has finished or hung up may take to exit before it is killed."""


def evaluate(
    request: Request,
    *,
    observe: Observe = lambda what, details: None,
    cancel: threading.Event | None = None,
) -> Evaluated:
    """Train the submission in a fresh sandbox and score what it serves.

    Raises InfrastructureError, JudgeError, Cancelled.
    """
    began = time.monotonic()
    observe = unbreakable(observe)
    attempt = _Attempt(request, observe, cancel or threading.Event(), GpuMonitor(request.gpus))
    try:
        reading = read(request.task, request.profile, request.files)
        with (
            _stage(request) as stage,
            attempt.monitor,
            closing(_examiner(request, stage)) as examiner,
        ):
            outcome = attempt.run(stage, examiner, {"settings": reading.settings})
            if request.strict:
                outcome = _strictly(attempt, stage, examiner, outcome)
        outcome = replace(outcome, text=reading.audits)
    except Rejected as rejected:
        outcome = _Outcome(None, rejected.reason, clean(rejected.message), rejected.audits)
    score = _score(request, outcome, attempt, time.monotonic() - began)
    return Evaluated(score, attempt.output.text())


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How an evaluation ended: a verdict, or a reason with a message for the submission's author.

    ``text``: the audits of the source text, made before any of it ran.
    """

    verdict: Verdict | None = None
    reason: Reason | None = None
    message: str = ""
    text: tuple[Audit, ...] = ()


@dataclass
class _Attempt:
    """One sandbox with one candidate, and what was observed of them."""

    request: Request
    observe: Observe
    cancel: threading.Event
    monitor: GpuMonitor
    output: Output = field(default_factory=Output)
    peer_uid: int | None = None
    unenforced: tuple[str, ...] = ()
    result: ExecResult | None = None
    looked: float = 0.0
    """When the output was last searched for training progress, by ``time.monotonic``."""

    @cached_property
    def submission(self) -> Submission:
        """Sort of the submission, as registered in ``tasks.submissions``."""
        return SUBMISSIONS.find(self.request.task.definition.writes)

    def run(
        self, stage: Path, examiner: Examiner, extra: dict[str, Any], *, frozen: bool = False
    ) -> _Outcome:
        """Start a candidate and examine it. ``extra`` is added to its config file.

        ``frozen``: serve the exported model instead, without mounting the submission.
        """
        request = self.request
        limits = request.task.profile(request.profile).limits
        definition = request.task.definition
        entry = definition.frozen_entry if frozen else definition.entry
        with closing(Listener(stage / "link" / "judge.sock")) as listener:
            spec = _spec(request, stage, frozen=frozen)
            self.unenforced = request.backend.unenforced(spec)
            with (
                request.backend.open(spec) as sandbox,
                closing(LogitsBuffer(examiner.buffer_bytes)) as buffer,
            ):
                config = stage / "task" / "config.json"
                config.write_text(json.dumps({**_config(request, sandbox.inside), **extra}))
                config.chmod(0o644)
                argv = [sandbox.python, "-I", "-B", "-u"]  # -I ignores PYTHONUNBUFFERED
                argv += [sandbox.inside(f"/runner/{entry}")]
                argv += [sandbox.inside("/task/config.json")]
                times = Times(time.monotonic(), limits.train_s, limits.serve_s)
                self.observe(
                    "exported model" if frozen else "training", {"limit_s": limits.train_s}
                )
                env = {"OMP_NUM_THREADS": str(limits.cpus)}
                process = sandbox.start(argv, env=env, on_output=self.output.feed)
                try:
                    return self._converse(listener, buffer, process, examiner, times)
                finally:
                    process.kill()
                    self.result = self.result or process.wait()

    def _alive(self, process: Process) -> bool:
        if self.output.total > OUTPUT_LIMIT:
            raise _TooMuchOutput
        # A script sends no PROGRESS frames: its training progress is in what it prints.
        if self.submission.prints and time.monotonic() >= self.looked + POLL_S:
            self.looked = time.monotonic()
            if (printed := self.output.progress()) is not None:
                self.observe("progress", printed)
        return not process.poll()

    def _converse(
        self,
        listener: Listener,
        buffer: LogitsBuffer,
        process: Process,
        examiner: Examiner,
        times: Times,
    ) -> _Outcome:
        wire: Wire | None = None
        try:
            alive = partial(self._alive, process)
            wire = listener.accept(alive, self.cancel, times.spawned + times.train_s)
            self.peer_uid = wire.peer_uid
            wire.greet(buffer)
            verdict = examiner.examine(wire, buffer, times=times, observe=self.observe)
            self._let_finish(process)
            return _Outcome(verdict, verdict.failed, verdict.message)
        except Refused as refused:
            self._let_finish(process)
            return _Outcome(reason=refused.reason, message=refused.text)
        except ProtocolError as error:
            return _Outcome(reason=Reason.PROTOCOL_ERROR, message=clean(str(error)))
        except Late:
            message = f"No prediction was served within {times.train_s:g} s of the start."
            return _Outcome(reason=Reason.TRAIN_TIMEOUT, message=message)
        except ServeLate:
            message = f"Serving took longer than {times.serve_s:g} s."
            return _Outcome(reason=Reason.SERVE_TIMEOUT, message=message)
        except _TooMuchOutput:
            message = f"It printed more than {OUTPUT_LIMIT >> 20} MiB."
            return _Outcome(reason=Reason.OUTPUT_LIMIT, message=message)
        except Gone:
            return self._gone(process)
        finally:
            if wire is not None:
                wire.close()

    def _let_finish(self, process: Process) -> None:
        """Give a finished candidate time to print its last output, which belongs in the log."""
        deadline = time.monotonic() + GRACE_S
        while not (process.poll() or self.cancel.is_set() or time.monotonic() > deadline):
            time.sleep(0.01)

    def _gone(self, process: Process) -> _Outcome:
        """Find out from the sandbox why a candidate ended early. Raises SandboxLostError."""
        result = self.result = process.wait(GRACE_S)
        if result.ended == "lost":
            raise SandboxLostError(
                "The sandbox went away while a submission was in it.",
                cause=clean(result.stderr.decode(errors="replace"), 500),
                remedy="harness doctor",
            )
        tail = self.output.last_lines()
        after = f"\nIt printed last:\n{tail}" if tail else ""
        if result.ended == "oom":
            limit = self.request.task.profile(self.request.profile).limits.memory_mb
            message = f"It used more memory than the {limit} MiB it was given."
            return _Outcome(reason=Reason.OUT_OF_MEMORY, message=message)
        if result.exit_code is not None and result.exit_code < 0:
            message = f"It died of signal {-result.exit_code} before it was served.{after}"
            return _Outcome(reason=Reason.CRASHED, message=message)
        if result.ended == "timeout":
            message = f"It hung up before all predictions were served.{after}"
            return _Outcome(reason=Reason.EXITED_EARLY, message=message)
        message = f"It ended (exit {result.exit_code}) before all predictions were served.{after}"
        return _Outcome(reason=Reason.EXITED_EARLY, message=message)


class _TooMuchOutput(Exception):
    pass


def _strictly(attempt: _Attempt, stage: Path, examiner: Examiner, outcome: _Outcome) -> _Outcome:
    """Serve the exported model by two fresh processes; the result replaces the verdict.

    A submission that has already failed keeps that outcome. If the model cannot be served this way,
    the verdict stays as it was, and its ``strict`` field says why.
    """
    if outcome.verdict is None or outcome.reason is not None:
        return outcome
    if not isinstance(examiner, Freezing):
        kind = attempt.request.task.definition.kind
        verdict = replace(outcome.verdict, strict=f"unavailable: no exported model in {kind}")
        return _Outcome(verdict)
    why = examiner.not_frozen
    if not why:
        halves = examiner.halves()
        with closing(halves[0]), closing(halves[1]):
            for half in halves:
                fresh = _Attempt(attempt.request, attempt.observe, attempt.cancel, attempt.monitor)
                (stage / "link" / "judge.sock").unlink(missing_ok=True)
                found = fresh.run(stage, half, {"batch_size": examiner.batch_size}, frozen=True)
                if found.reason is not None:
                    why = f"the exported model was not served ({found.reason}): {found.message}"
                    break
    if why:
        verdict = replace(outcome.verdict, strict=f"unavailable: {clean(why, 500)}")
        return _Outcome(verdict)
    verdict = examiner.strict_verdict(outcome.verdict, halves)
    return _Outcome(verdict, verdict.failed, verdict.message)


def _examiner(request: Request, stage: Path) -> Examiner:
    kind = KINDS.find(request.task.definition.kind)
    frozen_at = stage / FROZEN / MODEL if request.strict else None
    examiner: Examiner = load(kind.examiner).of(request, frozen_at=frozen_at)
    return examiner


@contextmanager
def _stage(request: Request) -> Iterator[Path]:
    """Make a temporary folder with what is mounted: submission, runner, config, socket folder."""
    stage = Path(tempfile.mkdtemp(prefix=f"{STAGE_PREFIX}{os.getpid()}-"))
    try:
        for folder in ("submission", "runner", "task", "link", FROZEN):
            (stage / folder).mkdir()
        for name, text in request.files.items():
            (stage / "submission" / Path(name).name).write_text(text)
        runner = {**request.task.runner_files(), "candidate.py": Path(candidate.__file__)}
        for name, path in runner.items():
            shutil.copyfile(path, stage / "runner" / name)
        for path in stage.rglob("*"):  # not left to the umask: the candidate is another user
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _spec(request: Request, stage: Path, *, frozen: bool) -> SandboxSpec:
    limits = request.task.profile(request.profile).limits
    mounts = [Mount(stage / f, f"/{f}") for f in ("runner", "task", "link")]
    if frozen:
        mounts.append(Mount(stage / FROZEN, f"/{FROZEN}"))
    else:
        mounts.append(Mount(stage / "submission", "/submission"))
        mounts.append(Mount(request.data / "train", "/data/train"))
    return SandboxSpec(
        memory_bytes=limits.memory_mb << 20,
        cpus=float(limits.cpus),
        pids=limits.pids,
        disk_bytes=limits.scratch_mb << 20,
        gpus=request.gpus,
        lifetime_s=limits.train_s + limits.serve_s + 180,
        mounts=tuple(mounts),
    )


def _config(request: Request, inside: Callable[[str], str]) -> dict[str, Any]:
    limits = request.task.profile(request.profile).limits
    return {
        "task": request.task.name,
        "profile": request.profile,
        "variant": request.task.variant,
        "seed": request.training_seed,
        "shape": request.manifest.shape,
        "cpus": limits.cpus,
        "device": request.device,
        "max_parameters": limits.max_parameters,
        "strict": request.strict,
        "paths": {
            "train": inside("/data/train"),
            "submission": inside("/submission"),
            "socket": inside("/link/judge.sock"),
            "scratch": inside("/work"),
            "frozen": inside(f"/{FROZEN}/{MODEL}"),
        },
    }


def _score(request: Request, outcome: _Outcome, attempt: _Attempt, total_s: float) -> Score:
    verdict = outcome.verdict
    valid = verdict is not None and outcome.reason is None
    if verdict is None and outcome.reason is None:
        raise JudgeError("The judge ended without a verdict.", remedy="harness rescore")
    seconds = {"total": total_s}
    if verdict is not None:
        seconds |= {"train": verdict.train_s, "serve": verdict.serve_s, "judge": verdict.judge_s}
    elif attempt.result is not None:
        seconds["train"] = attempt.result.seconds
    peak = attempt.result.peak_memory_bytes if attempt.result else None
    return Score(
        valid=valid,
        metric=request.task.definition.metric,
        score=verdict.score if valid and verdict else None,
        measured=verdict.score if verdict and isfinite(verdict.score) else None,
        standard_error=verdict.standard_error if valid and verdict else None,
        rows=request.manifest.rows[request.split],
        reason=outcome.reason,
        message=outcome.message,
        audits=outcome.text + (verdict.audits if verdict else ()),
        resolution=verdict.resolution if verdict else None,
        strict=verdict.strict if verdict else None,
        claim=claims.kept(attempt.submission, verdict, attempt.output),
        submission=hash_files(request.files),
        conditions=conditions.of(
            request,
            gpus=attempt.monitor.records,
            unenforced=attempt.unenforced,
            candidate_uid=attempt.peer_uid,
        ),
        seconds={k: round(v, 3) for k, v in seconds.items()},
        peak_memory_mb=None if peak is None else peak >> 20,
    )
