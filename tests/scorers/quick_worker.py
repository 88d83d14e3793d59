"""The reader's worker without torch, which takes seconds to import: it opens, and reads nothing.

Pipes, board, requests and replies are the real worker's own.
"""

import sys
from types import SimpleNamespace

sys.modules["torch"] = SimpleNamespace(float16=None, frombuffer=lambda memory, dtype: memory)

from scorers import gpu_worker  # noqa: E402


class Arithmetic:
    """Finds no fault with any logits, and leaves the answers as they are."""

    def __init__(self, *_):
        pass

    def read(self, _source, _board, _sizes, copied):
        copied(0)


gpu_worker.Arithmetic = Arithmetic
gpu_worker._choose = lambda *_: ("quick", None)
gpu_worker.main(sys.argv[1:])
