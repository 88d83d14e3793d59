"""What every judge does the same way: follow the training, ask for a batch, keep the time.

Which rows are asked for, and what is made of the answers, is the business of
``classification`` and ``language``. An Examiner knows rows and labels and never sees agent
code. Its answer is a Verdict, or one of the exceptions here and in ``scorers.wire``, which
``scorers.evaluate`` turns into reasons.
"""

import contextlib
import json
import struct
import time
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
"""Between two words on progress: a flood of them must not keep the process from other work."""

BYE_S = 1.0
"""How long the goodbye may take to be accepted; by then everything is decided."""


ITS_WORDS = "In the sandbox: "
"""What a message begins with that was written there: a submission cannot speak as the judge."""


class Refused(Exception):
    """The candidate said itself why it cannot be served."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class ServeLate(Exception):
    """Serving took longer than its limit; before the first answer it is ``Late``, for training."""


@dataclass(frozen=True, slots=True)
class Times:
    """Limits in seconds, and the judge's clock at the moment of spawn."""

    spawned: float
    train_s: float
    serve_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge measured. ``resolution``: the smallest theft it sees, in the metric.

    ``strict``: see Score.
    """

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


class Examiner(Protocol):
    """Holds the hidden rows of one split and examines one candidate."""

    buffer_bytes: int
    """Size of the buffer that the candidate writes its logits to."""

    @classmethod
    def of(cls, request: Request, *, frozen_at: Path | None) -> Self:
        """Return the examiner of a request. All that is drawn is drawn from its ``audit_seed``.

        ``frozen_at``: where to keep an exported model; None where none is asked for.
        """
        ...

    def examine(
        self, wire: Wire, buffer: LogitsBuffer, *, times: Times, observe: Observe
    ) -> Verdict:
        """Serve every row and measure.

        Raises Refused, Late, ServeLate, ProtocolError, Gone, Cancelled.
        """
        ...

    def close(self) -> None:
        """Let go of what the examination took. Idempotent."""
        ...


@runtime_checkable
class Freezing(Examiner, Protocol):
    """An examiner that can keep an exported model and have that decide, served by two processes."""

    not_frozen: str
    """Why there is no exported model; empty where there is one."""
    batch_size: int

    def halves(self) -> tuple[Any, Any]:
        """Return the examiners of the two processes."""
        ...

    def strict_verdict(self, verdict: Verdict, halves: tuple[Any, Any]) -> Verdict:
        """Return the verdict on the exported model, with the audits of both."""
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
            refuse(frame)


def ask(
    wire: Wire,
    sequence: int,
    tokens: NDArray[np.int32],
    shape: tuple[int, int, int],
    deadline: float,
) -> None:
    """Send one batch, int32 (rows, length); return when its logits are in the buffer.

    ``shape`` is what they must have: rows, positions, classes. Raises ProtocolError, Refused,
    ServeLate, or Late if it is the first batch, which ends the training; Gone, Cancelled.
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
        refuse(frame)
    if frame.sequence != sequence:
        raise ProtocolError(f"answer {frame.sequence} came for request {sequence}")
    if frame.shape() != shape:
        raise ProtocolError(f"logits {_said(frame.shape())} where {_said(shape)} were asked for")


def _said(shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Return a shape as the author of a submission knows it: a classifier has no positions."""
    return (shape[0], shape[2]) if shape[1] <= 1 else shape


def dismiss(wire: Wire, score: float | None, now: float) -> None:
    """Say goodbye, with the score if the candidate may know it.

    One that does not listen any more was judged all the same. Raises Gone.
    """
    with contextlib.suppress(Late):
        wire.send(BYE, 0, json.dumps({"score": score}).encode(), now + BYE_S)


def refuse(frame: Frame) -> None:
    """Raise what a frame means that is no answer: Refused, or ProtocolError."""
    if frame.kind != FAIL:
        raise ProtocolError(f"a frame of kind {frame.kind} came out of turn")
    told = frame.json()
    reason = next((r for r in REPORTED if r == told.get("kind")), Reason.RUNTIME_ERROR)
    raise Refused(reason, ITS_WORDS + clean(str(told.get("text", ""))))
