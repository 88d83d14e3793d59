"""Measures how much hidden text also occurs in the training text, by shared runs of 13 words.

A word is a run of letters and digits, in lower case; everything between words is ignored. Runs are
compared by 64-bit hashes. Of large texts only the runs are kept whose hash falls into a fixed
fraction, the same for both texts, so that the share is measured on a fair sample. The same runs
also serve to drop near-duplicates within one corpus.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray

WORDS = 13
SAMPLE = 1_000_000
"""About how many runs of a split are compared at most."""
BYTES_AT_ONCE = 4_000_000

Hashes = NDArray[np.uint64]


def _classes() -> NDArray[np.uint8]:
    """Return byte → its lower case if it belongs to a word, 0 if it stands between words."""
    table = np.zeros(256, np.uint8)
    for byte in range(256):
        if byte >= 0x80 or chr(byte).isalnum():
            table[byte] = ord(chr(byte).lower()) if byte < 0x80 else byte
    return table


CLASSES = _classes()
BETWEEN_DOCUMENTS = b"\n\xff\n"
"""0xff never occurs in UTF-8, so this is a word of its own; no run crosses it."""
RADIX = 0x9E3779B97F4A7C15
INVERSE = pow(RADIX, -1, 1 << 64)


def runs(texts: Iterable[str], threads: int = 1) -> Iterator[Hashes]:
    """Yield the hashes of all runs of 13 words within each of ``texts``, in batches."""
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[Hashes]] = deque()
        for batch in _batches(texts):
            ahead.append(pool.submit(_runs, batch))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class Overlap:
    """Records which runs of the hidden texts occur in texts that are passed to it later."""

    def __init__(self, hidden: Iterable[str], threads: int = 1) -> None:
        parts = list(runs(hidden, threads))
        every = np.concatenate(parts) if parts else np.zeros(0, np.uint64)
        self._thin = np.uint64(max(1, len(every) // SAMPLE))
        kept = self._sample(every)
        self._runs, self._times = np.unique(kept, return_counts=True)
        self._seen = np.zeros(len(self._runs), np.bool_)

    def look_at(self, hashes: Hashes) -> None:
        """Record which hidden runs are among ``hashes``, the ``runs`` of training text."""
        if len(self._runs):
            kept = np.sort(self._sample(hashes))
            at = np.minimum(np.searchsorted(self._runs, kept), len(self._runs) - 1)
            self._seen[at[self._runs[at] == kept]] = True

    @property
    def share(self) -> float:
        """Share of the hidden runs that were seen; 0 where the hidden texts have none."""
        total = int(self._times.sum())
        return float(self._times[self._seen].sum() / total) if total else 0.0

    def _sample(self, hashes: Hashes) -> Hashes:
        # The high bits: the low ones of a product depend on few bits of its factors.
        kept: Hashes = hashes[(hashes >> np.uint64(32)) % self._thin == 0]
        return kept


def without_near_duplicates(
    texts: list[str], most: float, progress: Callable[[int, int], None]
) -> list[str]:
    """Return the texts of which at most the fraction ``most`` of runs is in earlier texts kept.

    Only one run in eight is looked at. A text that has none of these is kept.
    """
    seen: set[int] = set()
    kept = []
    for number, text in enumerate(texts):
        if number % 5000 == 0:
            progress(number, len(texts))
        hashes = _runs(text.encode())
        own = set(hashes[hashes >> np.uint64(61) == 0].tolist())
        if len(own & seen) <= most * len(own):
            kept.append(text)
            seen |= own
    return kept


def _batches(texts: Iterable[str]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for text in texts:
        waiting.append(text.encode())
        size += len(waiting[-1])
        if size >= BYTES_AT_ONCE:
            yield BETWEEN_DOCUMENTS.join(waiting)
            waiting, size = [], 0
    if waiting:
        yield BETWEEN_DOCUMENTS.join(waiting)


def _runs(raw: bytes) -> Hashes:
    """Return the hash of every run of words in ``raw`` that does not cross a document's end."""
    data = CLASSES[np.frombuffer(raw, np.uint8)]
    inside = data > 0
    edges = np.flatnonzero(np.diff(inside.astype(np.int8), prepend=0, append=0))
    starts, ends = edges[::2], edges[1::2]
    if len(starts) < WORDS:
        return np.zeros(0, np.uint64)
    # A polynomial hash of each word: a difference of prefix sums of byte · RADIX^position, divided
    # by RADIX^start. RADIX is odd, so it has an inverse modulo 2^64.
    room = 1 << len(data).bit_length()
    prefix = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(data * _powers(RADIX, room)[: len(data)], out=prefix[1:])
    words = _mix((prefix[ends] - prefix[starts]) * _powers(INVERSE, room)[starts])
    document = np.cumsum(data[starts] == BETWEEN_DOCUMENTS[1])
    count = len(words) - WORDS + 1
    found = np.zeros(count, np.uint64)
    for i in range(WORDS):
        found = found * np.uint64(RADIX) + words[i : i + count]
    same = document[:count] == document[WORDS - 1 :]
    # The mark between two documents counts as the first word of the second.
    same &= data[starts[:count]] != BETWEEN_DOCUMENTS[1]
    return _mix(found[same])


@cache
def _powers(base: int, count: int) -> Hashes:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _mix(values: Hashes) -> Hashes:
    """Spread the bits of ``values`` (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
