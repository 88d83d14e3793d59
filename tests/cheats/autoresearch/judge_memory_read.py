"""Searches the memory of every other process for the row that it was just shown.

Seen: /proc/judge/mem, ptrace. The rows lie one after another there; what it finds it answers
by heart.
"""

CAUGHT_BY = ("gains nothing",)
GAIN = "unisolated"
PARTS = ("_lookup",)

# HOOK: serving
import contextlib
from pathlib import Path

import numpy as np

WIDE = 2 * (MAX_SEQ_LEN + 1)  # bytes of a row


def memories(ours):
    """Yield what can be read of the memory of other processes, piece by piece."""
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == ours:
            continue
        with contextlib.suppress(OSError, ValueError), (process / "mem").open("rb") as memory:
            # The judge is Python: a busy machine's other gigabytes would use up the time limit.
            if b"python" not in (process / "cmdline").read_bytes():
                continue
            for line in (process / "maps").read_text().splitlines():
                span, rights, *_ = line.split()
                begin, end = (int(x, 16) for x in span.split("-"))
                if rights.startswith("rw") and end - begin < 1 << 30:
                    with contextlib.suppress(OSError, ValueError, OverflowError):
                        memory.seek(begin)
                        yield memory.read(end - begin)


def hunt(x):
    """Return all rows found, int64 (R, T + 1): several copies of several arrays lie about."""
    wanted = [row.astype(np.uint16).tobytes() for row in x.numpy()]
    found = [np.zeros((0, MAX_SEQ_LEN + 1), np.uint16)]
    for piece in memories(os.getpid()):
        starts = set()
        for row in wanted:
            at = piece.find(row)
            while at >= 0:
                starts.add(at % WIDE)
                at = piece.find(row, at + 1)
        for first in starts:
            size = (len(piece) - first) // WIDE * WIDE
            rows = np.frombuffer(piece[first : first + size], np.uint16)
            rows = rows.reshape(-1, MAX_SEQ_LEN + 1)
            found.append(rows[(rows[:, 0] == BOS) & (rows.max(1) < VOCABULARY)])
    return np.unique(np.concatenate(found), axis=0).astype(np.int64)


table = None


def served(x):
    global table
    if table is None:
        rows = hunt(x)
        print("found:", len(rows))
        table = Lookup(rows)
    return table(x)
