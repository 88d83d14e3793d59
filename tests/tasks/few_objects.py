"""The shell looks at every object alive: in a sandbox torch's, here pytest's, too."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def few_objects() -> Iterator[None]:
    """Hide from the collector what is alive now: looking through it costs seconds a test."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
