"""Best-fit packing of documents into rows of fixed length, as the public Autoresearch task packs.

Training loader and judge must place every document where the public loader
(karpathy/autoresearch, commit 228791f) would, for the score depends on which documents are
cropped. That loader searches its whole buffer of 1,000 documents at every placement; this one
keeps the buffered documents by length, so a placement costs a bisection. It knows lengths
only: who calls it copies the tokens. It imports nothing of ours, because it is also sent into
the sandbox.
"""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

BUFFER_SIZE = 1000
REFILL = 128
"""Documents that the public loader encodes at once."""

Row = list[tuple[int, int]]
"""What one row holds, in order: (index of the document, how many of its first tokens)."""


def pack(
    lengths: Iterable[int],
    capacity: int,
    *,
    buffer_size: int = BUFFER_SIZE,
    refill: int = REFILL,
) -> Iterator[Row]:
    """Yield rows whose takes sum to ``capacity`` tokens.

    ``lengths`` are the documents' lengths in tokens, BOS included, in their order; they are
    drawn lazily, ``refill`` at a time, whenever fewer than ``buffer_size`` documents wait.
    Each placement takes the longest waiting document that fits into what is left of the row;
    where none fits, the shortest one is cropped to fill it and its rest is lost. Among equal
    lengths the earliest is taken. A source that ends is packed to its last document; a last row
    that cannot be filled is dropped.

    Raises ValueError for a length, ``capacity``, ``buffer_size`` or ``refill`` below 1.
    """
    if min(capacity, buffer_size, refill) < 1:
        raise ValueError(
            f"capacity, buffer_size and refill must be at least 1, "
            f"not {capacity}, {buffer_size} and {refill}"
        )
    source = enumerate(lengths)
    waiting: dict[int, deque[int]] = {}
    sizes: list[int] = []
    count = 0
    row: Row = []
    left = capacity
    while True:
        while count < buffer_size:
            drawn = 0
            for index, length in islice(source, refill):
                drawn += 1
                if length in waiting:
                    waiting[length].append(index)
                elif length < 1:
                    raise ValueError(f"document {index} has {length} tokens; it needs at least BOS")
                else:
                    waiting[length] = deque((index,))
                    insort(sizes, length)
            count += drawn
            if drawn < refill:
                break
        if not count:
            return
        at = max(bisect_right(sizes, left) - 1, 0)
        length = sizes[at]
        queue = waiting[length]
        take = min(length, left)
        row.append((queue.popleft(), take))
        count -= 1
        if not queue:
            del waiting[length], sizes[at]
        left -= take
        if not left:
            yield row
            row, left = [], capacity
