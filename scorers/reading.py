"""What a judge keeps of a batch of next-token logits: a few numbers a position.

All of it is taken from one private copy of what the candidate wrote, so that nothing can
change between a check and its use. The log-softmax is the judge's own, over exactly the
vocabulary: a submission cannot hand in probabilities that do not sum to one.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scorers.wire import LogitsBuffer

LARGEST = 1e4
"""Logits beyond this count as not finite: no honest model has them, and float32 rounds there."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Question:
    """What is wanted of one batch.

    targets: token ids (rows, positions), of any integer type. columns: (k,) token ids.
    sketched: (m,) rows, ascending, whose columns are wanted. picks: (n, 3) of row, position,
    token, in the order of rows.
    """

    targets: NDArray[np.integer[Any]]
    columns: Ints
    sketched: Ints
    picks: Ints


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer to a Question.

    nats: float32 (rows, positions), -log p of each target. sketch: float32 (m, positions, k),
    log p of the columns in the rows that are sketched. picks: float32 (n,), log p of the tokens
    asked for.
    """

    nats: Floats
    sketch: Floats
    picks: Floats


class Reader(Protocol):
    """Reads the logits that a candidate has just written: ``begin``, ``copied``, ``reading``."""

    def begin(self, question: Question) -> None:
        """Begin to read a batch."""
        ...

    def copied(self) -> int:
        """Wait for the private copy; return how many logits are not finite or beyond LARGEST.

        Only then may the candidate see the next rows: it could else change this answer.
        """
        ...

    def reading(self) -> Reading:
        """Wait for the numbers. They last until it is called again."""
        ...

    def close(self) -> None:
        """Let go of the buffer. Idempotent."""
        ...


class HostReader:
    """Reads float32 logits (rows, positions, vocabulary) from the shared buffer."""

    def __init__(self, buffer: LogitsBuffer, vocabulary: int) -> None:
        self._buffer = buffer
        self._vocabulary = vocabulary
        self._read: tuple[int, Reading] | None = None

    def begin(self, question: Question) -> None:
        """Copy once, then read the copy, a row at a time: a row fits in the cache."""
        rows, positions = question.targets.shape
        size = rows * positions * self._vocabulary * 4
        copy = np.frombuffer(self._buffer.take(size), np.float32)
        logits = copy.reshape(rows, positions, self._vocabulary)
        normaliser = np.empty((rows, positions), np.float32)
        bad = 0
        with np.errstate(all="ignore"):  # what is not finite is counted, and then nothing counts
            for row in range(rows):
                bad += int(np.count_nonzero(~(np.abs(logits[row]) <= LARGEST)))
                peak = logits[row].max(axis=1, keepdims=True)
                total = np.exp(logits[row] - peak).sum(axis=1)
                normaliser[row] = peak[:, 0] + np.log(total)
            own = np.take_along_axis(logits, question.targets[:, :, None], axis=2)[:, :, 0]
            some = question.sketched[:, None]
            columns = logits[some[:, :, None], np.arange(positions)[:, None], question.columns]
            row, position, token = question.picks.T
            reading = Reading(
                nats=normaliser - own,
                sketch=columns - normaliser[some[:, 0], :, None],
                picks=logits[row, position, token] - normaliser[row, position],
            )
        self._read = bad, reading

    def copied(self) -> int:
        """Return what ``Reader.copied`` does: all is done by then."""
        return self._done[0]

    def reading(self) -> Reading:
        """Return what ``begin`` has read."""
        return self._done[1]

    def close(self) -> None:
        """Nothing is held."""

    @property
    def _done(self) -> tuple[int, Reading]:
        if self._read is None:
            raise AssertionError("asked before begin")
        return self._read
