"""A 4-gram model: the reference whose loss the judge subtracts to see small differences.

Interpolated Kneser-Ney with the three discounts of Chen and Goodman (1998): the counts of seen
n-grams are reduced a little, and the probability that this frees goes to the distribution with one
token of context less. There, a token is weighted by the number of different tokens it follows.
Every distribution sums to one over the vocabulary: the lowest is the uniform one, and each order
passes on exactly the probability that it took.

A document begins at BOS, and nothing before it counts: tokens before the last BOS of a context are
read as BOS. An n-gram is one uint64, 16 bits per token, so sorting is enough to count n-grams.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

ORDERS = 4
"""Distributions with 0 to 3 tokens of context."""
MAX_TRAIN_TOKENS = 50_000_000
QUERIES_AT_ONCE = 4_000_000
BITS = np.uint64(16)
GRAIN = 2.0**-16
"""Log-probabilities are rounded to multiples of it, so that machines agree whose logarithms differ
in the last bit."""
FALLBACK_DISCOUNT = 0.75
"""For counts too few to estimate a discount from."""

Keys = NDArray[np.uint64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class NgramOrder:
    """The n-grams of one order. Row 0 of the weights is from their counts, row 1 from their
    continuations (how many different tokens they follow), for use under a higher order."""

    grams: Keys  # (n,) sorted
    shares: NDArray[np.float32]  # (2, n) discounted probability of a gram's last token
    contexts: Keys  # (m,) sorted
    left: NDArray[np.float32]  # (2, m) probability passed to the order below

    @classmethod
    def of(cls, grams: Keys, counts: Doubles, continuations: Doubles) -> Self:
        """Build the level of ``grams``, which are sorted and distinct."""
        above = grams >> BITS
        starts = np.flatnonzero(np.concatenate(([True], above[1:] != above[:-1])))
        sizes = np.diff(np.append(starts, len(grams)))
        shares = np.empty((2, len(grams)), np.float32)
        left = np.empty((2, len(starts)), np.float32)
        for row, weights in enumerate((counts, continuations)):
            discounts = _discounts(weights)
            kind = np.minimum(weights, len(discounts)).astype(np.intp) - 1
            total = np.add.reduceat(weights, starts)
            shares[row] = (weights - discounts[kind]) / np.repeat(total, sizes)
            # Whole numbers are summed, so that every machine gets the same bits.
            off = sum(d * np.add.reduceat(kind == i, starts) for i, d in enumerate(discounts))
            left[row] = off / total
        return cls(grams, shares, above[starts], left)

    def interpolate(self, keys: Keys, lower: Doubles) -> tuple[Doubles, Doubles]:
        """Return the probabilities of ``keys`` by counts and by continuations, using ``lower``."""
        order = np.argsort(keys)  # neighbouring searches then share the cache
        sorted_keys = keys[order]
        found, at = _find(self.grams, sorted_keys)
        known, context = _find(self.contexts, sorted_keys >> BITS)
        below = lower[order]
        results = []
        for row in range(2):
            p = below * np.where(known, self.left[row, context], 1.0)
            p += np.where(found, self.shares[row, at], 0.0)
            back = np.empty_like(p)
            back[order] = p
            results.append(back)
        return results[0], results[1]


@dataclass(frozen=True)
class NgramReference:
    """The model: level k holds the n-grams with k tokens of context."""

    levels: tuple[NgramOrder, ...]
    vocabulary: int
    bos: int

    def log_probabilities(
        self,
        tokens: NDArray[np.uint16],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> NDArray[np.float32]:
        """Return float32 (4, n): [k, t] = log p(tokens[t] | the k tokens before it), in nats.

        ``tokens`` (n,) is a stream of documents that each begin with BOS. The first token, which
        has nothing before it, gets the probability without context for every k.
        """
        table = np.empty((ORDERS, len(tokens)), np.float32)
        for start in range(0, len(tokens), QUERIES_AT_ONCE):
            stop = min(start + QUERIES_AT_ONCE, len(tokens))
            keys = keys_of(tokens, self.bos, start, stop)
            below = np.full(len(keys), 1 / self.vocabulary)
            for k, level in enumerate(self.levels):
                p, below = level.interpolate(keys & _mask(k), below)
                # A share and a rest, rounded to float32, may sum to a little over 1.
                table[k, start:stop] = np.rint(np.log(np.minimum(p, 1.0)) / GRAIN) * GRAIN
            progress(stop, len(tokens))
        table[:, 0] = table[0, 0]
        return table


def train(tokens: NDArray[np.uint16], vocabulary: int, bos: int) -> NgramReference:
    """Return the model of the first 50 million of ``tokens`` (n,); documents begin with BOS."""
    tokens = tokens[:MAX_TRAIN_TOKENS]
    keys = np.sort(keys_of(tokens, bos, 0, len(tokens)))
    levels: list[NgramOrder] = []
    longer: Keys | None = None
    for k in reversed(range(ORDERS)):
        grams, counts = _runs(keys)
        if longer is None:
            continuations = counts
        else:
            # The same n-grams again: each has a token before it, even if only an assumed BOS.
            _, different = _runs(np.sort(longer & _mask(k)))
            first = grams >> (BITS * np.uint64(k))
            # Only BOS precedes BOS, so an n-gram that begins with BOS would have one continuation.
            continuations = np.where((first == bos) & (k > 0), counts, different)
        levels.append(NgramOrder.of(grams, counts, continuations))
        longer = grams
        if k:
            keys = np.sort(keys & _mask(k - 1))
    return NgramReference(tuple(reversed(levels)), vocabulary, bos)


def bits_per_byte(
    log_p: NDArray[np.float32], targets: NDArray[np.uint16], token_bytes: NDArray[np.int32]
) -> float:
    """Return the bits-per-byte of ``log_p`` for ``targets`` (same shape), special ones left out."""
    size = token_bytes[targets]
    nats = -float(log_p[size > 0].astype(np.float64).sum())
    return nats / (math.log(2) * int(size.sum()))


def keys_of(tokens: NDArray[np.uint16], bos: int, start: int, stop: int) -> Keys:
    """Return the 4-grams that end at ``start`` … ``stop`` − 1, contexts cut off at BOS."""
    keys = tokens[start:stop].astype(np.uint64)
    cut = np.zeros(len(keys), np.bool_)
    for k in range(1, ORDERS):
        at = np.arange(start - k, stop - k)
        before = tokens[np.maximum(at, 0)]
        cut |= at < 0
        before = np.where(cut, np.uint16(bos), before)
        keys |= before.astype(np.uint64) << (BITS * np.uint64(k))
        cut |= before == bos
    return keys


def _mask(k: int) -> np.uint64:
    return np.uint64((1 << (16 * (k + 1))) - 1)


def _runs(keys: Keys) -> tuple[Keys, Doubles]:
    """Return the distinct values of the sorted ``keys`` and how often each occurs."""
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    return keys[starts], np.diff(np.append(starts, len(keys))).astype(np.float64)


def _find(table: Keys, sorted_keys: Keys) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    at = np.minimum(np.searchsorted(table, sorted_keys), len(table) - 1)
    return table[at] == sorted_keys, at


def _discounts(weights: Doubles) -> Doubles:
    """Return the discounts of counts of 1, 2, and 3 or more, by Chen and Goodman's estimate."""
    n1, n2, n3, n4 = (float((weights == c).sum()) for c in range(1, 5))
    discounts = [FALLBACK_DISCOUNT] * 3
    if min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        raw = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        discounts = [min(max(d, 0.05), c - 0.05) for c, d in enumerate(raw, start=1)]
    return np.array(discounts)
