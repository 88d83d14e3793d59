"""Keeps the shell's scan of all live Python objects short in a test process.

The shell counts weights by looking at every object that the garbage collector tracks: in a sandbox
mostly torch's, in a test process also pytest's.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def few_objects() -> Iterator[None]:
    """Hide the objects alive now from the garbage collector: a scan costs seconds per test."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
