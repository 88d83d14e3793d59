"""Random numbers that depend on the seed alone, and on no version of numpy.

They come from the raw PCG64 stream, which numpy promises never to change, unlike the methods of
its Generator.
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


class RandomStream:
    """A stream of random numbers that is the same for a seed under every version of numpy."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, count: int) -> Doubles:
        """Return ``count`` numbers in [0, 1)."""
        raw = np.asarray(self._bits.random_raw(count), dtype=np.uint64)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, limit: int, count: int) -> Ints:
        """Return ``count`` integers in [0, limit)."""
        return (self.uniform(count) * limit).astype(np.int64)

    def order(self, count: int) -> Ints:
        """Return the numbers below ``count`` in random order."""
        return np.argsort(self.uniform(count), kind="stable")
