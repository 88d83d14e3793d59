"""Keeps the training shell from slowing and changing a test process.

The shell counts weights by looking at every object that the garbage collector tracks: in a sandbox
mostly torch's, in a test process also pytest's. It also sets torch's switches and seeds, which in a
sandbox end with the process.
"""

import gc
import random
import sys
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


@contextmanager
def no_trace() -> Iterator[None]:
    """Afterwards undo what the shell set here: threads, determinism, seeds and the model."""
    import numpy as np
    import torch

    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    python, numpy, ours = random.getstate(), np.random.get_state(), torch.get_rng_state()
    model = sys.modules.pop("model", None)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(ours)
        sys.modules.pop("model", None)
        if model is not None:
            sys.modules["model"] = model
