"""Measures rows per second of best-fit packing, against the same rule with a scan of the buffer.

    python benchmarks/packing.py

Lengths are log-normal like those of web text (median 600 tokens). Rows have 2,049 tokens and the
buffer 1,000 documents, as in the public Autoresearch task. No tokens are copied.
"""

import itertools
import random
import time
from collections.abc import Iterable, Iterator

from tasks.packing import pack

CAPACITY, BUFFER, REFILL = 2049, 1000, 128
ROWS = 20_000
SCANNED_ROWS = 300


def lengths(seed: int = 0) -> Iterator[int]:
    rng = random.Random(seed)
    while True:
        yield 1 + int(rng.lognormvariate(6.4, 1.0))


def scan(source: Iterable[int]) -> Iterator[list[tuple[int, int]]]:
    """Pack by the rule as it is usually written: search the whole buffer at every placement."""
    numbered = enumerate(source)
    buffer: list[tuple[int, int]] = []
    while True:
        row: list[tuple[int, int]] = []
        left = CAPACITY
        while left:
            while len(buffer) < BUFFER:
                buffer += itertools.islice(numbered, REFILL)
            fitting = [i for i, (_, n) in enumerate(buffer) if n <= left]
            if fitting:
                best = max(fitting, key=lambda i: buffer[i][1])
            else:
                best = min(range(len(buffer)), key=lambda i: buffer[i][1])
            index, length = buffer.pop(best)
            row.append((index, min(length, left)))
            left -= row[-1][1]
        yield row


def main() -> None:
    same = list(itertools.islice(pack(lengths(), CAPACITY), SCANNED_ROWS))
    began = time.perf_counter()
    assert list(itertools.islice(scan(lengths()), SCANNED_ROWS)) == same
    scanned = SCANNED_ROWS / (time.perf_counter() - began)
    began = time.perf_counter()
    rows = list(itertools.islice(pack(lengths(), CAPACITY), ROWS))
    packed = ROWS / (time.perf_counter() - began)
    drawn = sum(itertools.islice(lengths(), 1 + max(i for row in rows for i, _ in row)))
    print(f"{'':24}{'rows/s':>10}{'tokens/s':>16}")
    for name, speed in (("scan of the buffer", scanned), ("by length, bisected", packed)):
        print(f"{name:24}{speed:10,.0f}{speed * CAPACITY:16,.0f}")
    print(f"cropped, or waiting at the end: {1 - ROWS * CAPACITY / drawn:.1%} of the tokens drawn")


if __name__ == "__main__":
    main()
