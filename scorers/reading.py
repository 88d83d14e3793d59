"""What a judge keeps of a batch of next-token logits: a few numbers a position.

All of it is taken from one private copy of what the candidate wrote, so that nothing can
change between a check and its use. The log-softmax is the judge's own, over exactly the
vocabulary: a submission cannot hand in probabilities that do not sum to one.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scorers.wire import LogitsBuffer

LARGEST = 1e4
"""Logits beyond this count as not finite: no honest model has them, and float32 rounds there."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reading:
    """Of one batch. ``bad``: how many logits are not finite or beyond LARGEST.

    nats: float32 (rows, positions), -log p of each target. sketch: float32 (rows, positions,
    columns), log p of a few columns of the vocabulary. picks: float32 (n,), log p of the
    tokens asked for.
    """

    nats: Floats
    sketch: Floats
    picks: Floats
    bad: int


class Reader(Protocol):
    """Reads the logits that a candidate has just written."""

    def read(self, targets: Ints, columns: Ints, picks: Ints) -> Reading:
        """Read a batch.

        ``targets``: (rows, positions) token ids. ``columns``: (k,) token ids. ``picks``:
        (n, 3) of row, position, token.
        """
        ...

    def close(self) -> None:
        """Let go of the buffer. Idempotent."""
        ...


class HostReader:
    """Reads float32 logits (rows, positions, vocabulary) from the shared buffer."""

    def __init__(self, buffer: LogitsBuffer, vocabulary: int) -> None:
        self._buffer = buffer
        self._vocabulary = vocabulary

    def read(self, targets: Ints, columns: Ints, picks: Ints) -> Reading:
        """Copy once, then read the copy, a row at a time: a row fits in the cache."""
        rows, positions = targets.shape
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
            own = np.take_along_axis(logits, targets[:, :, None], axis=2)[:, :, 0]
            row, position, token = picks.T
            return Reading(
                nats=normaliser - own,
                sketch=logits[:, :, columns] - normaliser[:, :, None],
                picks=logits[row, position, token] - normaliser[row, position],
                bad=bad,
            )

    def close(self) -> None:
        """Nothing is held."""
