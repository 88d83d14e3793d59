"""What all judges share: follow the training, ask for a batch, enforce the time limits.

``classification`` and ``language`` decide which rows are asked for and how the answers are
measured. An Examiner knows rows and labels and never sees agent code. It returns a Verdict or
raises one of the exceptions here and in ``scorers.wire``, which ``scorers.evaluate`` turns into
reasons.
"""

import contextlib
import json
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness.base.text import clean
from scorers.candidate.candidate import BATCH, BYE, FAIL, LOGITS, PROGRESS, READY
from scorers.request import Observe, Request
from scorers.score import REPORTED, Audit, Reason
from scorers.wire import Frame, Late, LogitsBuffer, ProtocolError, Wire

PACE_S = 0.001
"""Pause after each progress frame: a flood of frames must not keep this process from other work."""

BYE_S = 1.0
"""How long sending the goodbye may take; the verdict is already decided by then."""


ITS_WORDS = "In the sandbox: "
"""Prefix of messages written in the sandbox, so that none can pass for a message of the judge."""


class Refused(Exception):
    """The candidate reported that it cannot be served, or left no GPU memory to read its logits."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class ServeLate(Exception):
    """Serving took longer than its limit. A late first answer is ``Late``: it ends the training."""


@dataclass(frozen=True, slots=True)
class Times:
    """Limits in seconds, and the judge's monotonic clock when the candidate was started."""

    spawned: float
    train_s: float
    serve_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge measured. ``resolution`` and ``strict`` are explained in Score."""

    score: float
    standard_error: float
    audits: tuple[Audit, ...]
    failed: Reason | None
    message: str
    claim: dict[str, Any]
    train_s: float
    serve_s: float
    judge_s: float
    resolution: float | None = None
    strict: str | None = None


Check = tuple[Audit, Reason, str]
"""An audit, and what a verdict says if it is the first to fail: a reason and a message."""


def first_failure(checks: Iterable[Check]) -> tuple[Reason | None, str]:
    """Return reason and message of the first audit that did not pass; None and "" if all did."""
    for audit, reason, message in checks:
        if not audit.passed:
            return reason, message
    return None, ""


class Examiner(Protocol):
    """Holds the hidden rows of one split and examines one candidate."""

    buffer_bytes: int
    """Size of the buffer that the candidate writes its logits to."""

    @classmethod
    def of(cls, request: Request, *, frozen_at: Path | None) -> Self:
        """Return the examiner of a request. All its randomness comes from the ``audit_seed``.

        ``frozen_at``: where to keep an exported model; None if the request does not want one.
        """
        ...

    def examine(
        self, wire: Wire, buffer: LogitsBuffer, *, times: Times, observe: Observe
    ) -> Verdict:
        """Have the candidate answer every row, and measure the answers.

        Raises Refused, Late, ServeLate, ProtocolError, Gone, Cancelled.
        """
        ...

    def close(self) -> None:
        """Release what the examination used. Idempotent."""
        ...


@runtime_checkable
class Freezing(Examiner, Protocol):
    """An examiner that can keep an exported model, serve it by two processes, and score that."""

    not_frozen: str
    """Why there is no exported model; empty if there is one."""
    batch_size: int

    def halves(self) -> tuple[Any, Any]:
        """Return the two examiners, one for each process."""
        ...

    def strict_verdict(self, verdict: Verdict, halves: tuple[Any, Any]) -> Verdict:
        """Return the verdict on the exported model; the audits of ``verdict`` are kept in it."""
        ...


def follow_training(wire: Wire, deadline: float, observe: Observe) -> dict[str, Any]:
    """Follow the training until the candidate is ready; return its claim.

    Raises Refused, Late, ProtocolError, Gone, Cancelled.
    """
    while True:
        frame = wire.receive(deadline)
        if frame.kind == READY:
            return frame.json()
        if frame.kind == PROGRESS:
            observe("progress", frame.progress())
            time.sleep(PACE_S)
        else:
            raise_refusal(frame)


def ask(
    wire: Wire,
    sequence: int,
    tokens: NDArray[np.int32],
    shape: tuple[int, int, int],
    deadline: float,
) -> None:
    """Send one batch, int32 (rows, length); return when its logits are in the buffer.

    ``shape`` is what the logits must have: rows, positions, classes. Raises ProtocolError, Refused,
    Gone, Cancelled, and when it is late, ServeLate, or Late for the first batch (number 0), which
    ends the training.
    """
    rows, length = tokens.shape
    head = struct.pack("<III", rows, length, shape[2])
    try:
        wire.send(BATCH, sequence, head + tokens.tobytes(), deadline)
        frame = wire.receive(deadline)
    except Late:
        if sequence:
            raise ServeLate from None
        raise
    if frame.kind != LOGITS:
        raise_refusal(frame)
    if frame.sequence != sequence:
        raise ProtocolError(f"answer {frame.sequence} came for request {sequence}")
    if frame.shape() != shape:
        raise ProtocolError(f"logits {_said(frame.shape())} where {_said(shape)} were asked for")


def _said(shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Return a shape as authors of submissions know it: without positions for a classifier."""
    return (shape[0], shape[2]) if shape[1] <= 1 else shape


def send_goodbye(wire: Wire, score: float | None, now: float) -> None:
    """Say goodbye, with the score if the candidate may know it.

    A candidate that does not read it keeps its verdict. Raises Gone.
    """
    with contextlib.suppress(Late):
        wire.send(BYE, 0, json.dumps({"score": score}).encode(), now + BYE_S)


def raise_refusal(frame: Frame) -> None:
    """Raise Refused for a FAIL frame, ProtocolError for any other frame that is out of turn."""
    if frame.kind != FAIL:
        raise ProtocolError(f"a frame of kind {frame.kind} came out of turn")
    message = frame.json()
    reason = next((r for r in REPORTED if r == message.get("kind")), Reason.RUNTIME_ERROR)
    raise Refused(reason, ITS_WORDS + clean(str(message.get("text", ""))))
