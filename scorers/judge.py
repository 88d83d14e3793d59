"""The judge's conversation with a candidate: ask, copy, check frames, keep the time.

It knows rows and labels; it never sees agent code. Its answer is a Verdict, or one of the
exceptions of ``scorers.wire``, which ``scorers.evaluate`` turns into reasons.
"""

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorers import audits
from scorers.candidate import BATCH, BYE, FAIL, LOGITS, PROGRESS, READY
from scorers.score import Audit, Reason
from scorers.wire import Frame, Late, LogitsBuffer, ProtocolError, Wire

Observe = Callable[[str, dict[str, Any]], None]
"""Called as ``observe(what, details)``; details of ``progress`` are the candidate's claim."""


class Refused(Exception):
    """The candidate said itself why it cannot be served."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class TrainLate(Exception):
    """No prediction was served within the training limit."""


class ServeLate(Exception):
    """Serving took longer than its limit."""


@dataclass(frozen=True, slots=True)
class Split:
    """Hidden rows. tokens: uint8 (rows, length), padded with 0; labels: uint8 (rows,)."""

    tokens: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    classes: int

    @classmethod
    def load(cls, folder: Path, classes: int) -> "Split":
        """Load a split that ``Task.prepare`` wrote."""
        tokens = np.load(folder / "tokens.npy", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        return cls(tokens, labels, classes)


@dataclass(frozen=True, slots=True)
class Times:
    """Limits in seconds, and the judge's clock at the moment of spawn."""

    spawned: float
    train_s: float
    serve_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge measured."""

    score: float
    standard_error: float
    audits: tuple[Audit, ...]
    failed: Reason | None
    message: str
    claim: dict[str, Any]
    train_s: float
    serve_s: float
    judge_s: float


def judge(
    wire: Wire,
    buffer: LogitsBuffer,
    split: Split,
    *,
    batch_size: int,
    audit_seed: str,
    times: Times,
    observe: Observe,
) -> Verdict:
    """Serve every row of ``split`` to the candidate and measure its accuracy.

    Raises Refused, TrainLate, ServeLate, ProtocolError, Gone, Cancelled.
    """
    train_deadline = times.spawned + times.train_s
    claim = _training(wire, train_deadline, observe)
    rng = np.random.default_rng(list(audit_seed.encode()))
    batches = audits.plan(len(split.tokens), batch_size, rng)
    observe("serving", {"batches": len(batches)})

    answers: list[audits.Logits] = []
    first = np.zeros((len(split.tokens), split.classes), np.float32)
    started = time.monotonic()
    try:
        for sequence, batch in enumerate(batches):
            if sequence == 0:
                deadline = train_deadline
            answers.append(_ask(wire, buffer, split, batch, sequence, deadline))
            if sequence == 0:
                started = time.monotonic()
                deadline = started + times.serve_s
            if batch.first:
                first[batch.rows] = answers[-1]
    except Late:
        raise (TrainLate if not answers else ServeLate) from None
    served = time.monotonic()
    wire.send(BYE, 0, b"", served + 1.0)

    checks, failed, message = _audit(batches, answers, first)
    order = np.concatenate([b.rows for b in batches if b.first])
    accuracy = float((first.argmax(axis=1) == split.labels).mean())
    trend = audits.trend(first[order].argmax(axis=1) == split.labels[order])
    checks.append(trend)
    if failed is None and not trend.passed:
        failed = Reason.TREND
        message = f"Accuracy rises while serving ({trend.value:.1f} standard deviations)."
    return Verdict(
        score=accuracy,
        standard_error=float(np.sqrt(accuracy * (1 - accuracy) / len(split.labels))),
        audits=tuple(checks),
        failed=failed,
        message=message,
        claim=claim,
        train_s=started - times.spawned,
        serve_s=served - started,
        judge_s=time.monotonic() - served,
    )


def _training(wire: Wire, deadline: float, observe: Observe) -> dict[str, Any]:
    """Follow the training until the candidate is ready; return its claim."""
    try:
        while True:
            frame = wire.receive(deadline)
            if frame.kind == READY:
                return frame.json()
            if frame.kind == PROGRESS:
                observe("progress", frame.json())
            else:
                _refuse(frame)
    except Late:
        raise TrainLate from None


def _ask(
    wire: Wire,
    buffer: LogitsBuffer,
    split: Split,
    batch: audits.Batch,
    sequence: int,
    deadline: float,
) -> audits.Logits:
    """Send one batch, return a private copy of its logits, float32 (rows, classes)."""
    tokens = split.tokens[batch.rows].astype(np.int32)
    rows, length = tokens.shape
    head = struct.pack("<III", rows, length, split.classes)
    wire.send(BATCH, sequence, head + tokens.tobytes(), deadline)
    frame = wire.receive(deadline)
    if frame.kind != LOGITS:
        _refuse(frame)
    if frame.sequence != sequence:
        raise ProtocolError(f"answer {frame.sequence} came for request {sequence}")
    if frame.shape() != (rows, split.classes):
        raise ProtocolError(f"logits {frame.shape()} for a batch of {(rows, split.classes)}")
    copy = np.frombuffer(buffer.take(rows * split.classes * 4), np.float32)
    return copy.reshape(rows, split.classes)


def _audit(
    batches: list[audits.Batch],
    answers: list[audits.Logits],
    first: audits.Logits,
) -> tuple[list[Audit], Reason | None, str]:
    finite = audits.finiteness(answers)
    if not finite.passed:
        return [finite], Reason.NOT_FINITE, f"{finite.value:.0f} served logits are not finite."
    stateless, where = audits.statelessness(batches, answers, first)
    if not stateless.passed:
        message = f"Logits depend on more than their row: {where}."
        return [finite, stateless], Reason.STATEFUL, message
    return [finite, stateless], None, ""


def _refuse(frame: Frame) -> None:
    if frame.kind != FAIL:
        raise ProtocolError(f"a frame of kind {frame.kind} came out of turn")
    told = frame.json()
    try:
        reason = Reason(str(told.get("kind")))
    except ValueError:
        reason = Reason.RUNTIME_ERROR
    raise Refused(reason, str(told.get("text", "")))
