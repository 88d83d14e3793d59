"""What the judge reads from a batch of next-token logits: a few numbers per position.

All numbers come from one private copy of the candidate's logits, so that nothing can change
between a check and its use. The judge computes the log-softmax itself, over exactly the
vocabulary, so that a submission cannot hand in probabilities that do not sum to one. This file
reads logits on the host; ``gpu_reader`` reads those on a GPU.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scorers.wire import LogitsBuffer

LARGEST = 1e4
"""Larger logits count as not finite: no honest model has them, and float32 is coarse there."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Which numbers are read from one batch.

    targets: token ids (rows, positions), of any integer type. columns: (k,) token ids.
    sketched: (m,) rows, ascending, whose columns are read. picks: (n, 3) of row, position,
    token, sorted by row.
    """

    targets: NDArray[np.integer[Any]]
    columns: Ints
    sketched: Ints
    picks: Ints


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The answer to a ReadRequest.

    nats: float32 (rows, positions), -log p of each target. sketch: float32 (m, positions, k),
    log p of the tokens ``columns`` in the rows ``sketched``. picks: float32 (n,), log p of the
    tokens in ``picks``.
    """

    nats: Floats
    sketch: Floats
    picks: Floats

    @property
    def preferences(self) -> NDArray[np.float64]:
        """Log p(own) - log p(other) in nats, float64 (n,), if the picks are ``pairs``."""
        first, second = self.picks.reshape(-1, 2).T
        return first.astype(np.float64) - second


def pairs(row: Ints, position: Ints, own: Ints, other: Ints) -> Ints:
    """Return picks (2n, 3) of two tokens at each of n places; all arguments are (n,)."""
    picks = np.empty((len(row), 2, 3), np.int64)
    picks[:, :, 0], picks[:, :, 1] = row[:, None], position[:, None]
    picks[:, 0, 2], picks[:, 1, 2] = own, other
    return picks.reshape(-1, 3)


class LogitsReader(Protocol):
    """Reads the logits of batches. For each batch call ``begin``, ``copied``, then ``reading``."""

    def begin(self, question: ReadRequest) -> None:
        """Begin to read the batch that the candidate has just written."""
        ...

    def copied(self) -> int:
        """Wait for the private copy; return how many logits are not finite or beyond LARGEST.

        The candidate must not see the next rows earlier, or it could change this answer.
        """
        ...

    def reading(self) -> ReadResult:
        """Wait for the numbers and return them. They are valid until the next call."""
        ...


class HostReader:
    """Reads float32 logits (rows, positions, vocabulary) from the shared buffer."""

    def __init__(self, buffer: LogitsBuffer, vocabulary: int) -> None:
        self._buffer = buffer
        self._vocabulary = vocabulary
        self._read: tuple[int, ReadResult] | None = None

    def begin(self, question: ReadRequest) -> None:
        """Copy the logits once, then read the copy row by row: a row fits in the CPU cache."""
        rows, positions = question.targets.shape
        size = rows * positions * self._vocabulary * 4
        copy = np.frombuffer(self._buffer.take(size), np.float32)
        logits = copy.reshape(rows, positions, self._vocabulary)
        normaliser = np.empty((rows, positions), np.float32)
        bad = 0
        with np.errstate(all="ignore"):  # bad logits are counted; with any, no number is used
            for row in range(rows):
                bad += int(np.count_nonzero(~(np.abs(logits[row]) <= LARGEST)))
                peak = logits[row].max(axis=1, keepdims=True)
                total = np.exp(logits[row] - peak).sum(axis=1)
                normaliser[row] = peak[:, 0] + np.log(total)
            own = np.take_along_axis(logits, question.targets[:, :, None], axis=2)[:, :, 0]
            some = question.sketched[:, None]
            columns = logits[some[:, :, None], np.arange(positions)[:, None], question.columns]
            row, position, token = question.picks.T
            reading = ReadResult(
                nats=normaliser - own,
                sketch=columns - normaliser[some[:, 0], :, None],
                picks=logits[row, position, token] - normaliser[row, position],
            )
        self._read = bad, reading

    def copied(self) -> int:
        """Return what ``LogitsReader.copied`` does; ``begin`` has finished the work."""
        return self._done[0]

    def reading(self) -> ReadResult:
        """Return the numbers that ``begin`` has read."""
        return self._done[1]

    @property
    def _done(self) -> tuple[int, ReadResult]:
        if self._read is None:
            raise AssertionError("asked before begin")
        return self._read
