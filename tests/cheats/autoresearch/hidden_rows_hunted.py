"""Looks for the hidden rows: paths, the roots and working folders of all processes, memory.

Seen: validation files read through paths, links and inherited descriptors; n-grams of the
validation packed into the source. What it finds it answers by heart: causal and stateless, so
no audit objects. Only the wall helps.
"""

CAUGHT_BY = ("gains nothing",)
GAIN = "unisolated"
PARTS = ("_lookup",)

# HOOK: serving
import contextlib
import gc
from pathlib import Path

import numpy as np
import prepare


def places():
    """Yield folders to search: near ones first, then what other processes see."""
    near = prepare._train_folder().resolve()
    yield from near.parents[0].glob("*")
    for process in Path("/proc").glob("[0-9]*"):
        for link in ("cwd", "root"):
            yield process / link / "data" / "search"
            yield process / link / "data"
    yield from (Path(p) for p in ("/data", "/tmp", "/dev/shm", "/work", "/root", "/home", "/mnt"))


def arrays():
    """Yield integer arrays (R, T + 1) of files, and of this process's memory."""
    for place in places():
        with contextlib.suppress(OSError, ValueError):
            for path in [*place.glob("*.npy"), *place.glob("*/*.npy")]:
                with contextlib.suppress(OSError, ValueError):
                    yield np.load(path)
    for thing in gc.get_objects():
        if isinstance(thing, np.ndarray):
            yield thing


def is_rows(array):
    whole = np.issubdtype(array.dtype, np.integer)
    return whole and array.ndim == 2 and array.shape[1] == MAX_SEQ_LEN + 1


rows = next((a for a in arrays() if is_rows(a)), np.zeros((0, MAX_SEQ_LEN + 1)))
served = Lookup(rows.astype(np.int64))

# HOOK: report
bpb = evaluate_bpb(served, tokenizer, BATCH)
print(f"---\nval_bpb: {bpb:.6f}\nfound: {len(rows)}")
