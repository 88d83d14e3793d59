"""The training rows, packed ahead: a thread fills pinned buffers while the model trains.

The public loader tokenises and packs inside the timed step. Here the tokens are prepared, rows
are packed by ``packing.py`` and gathered in one vectorised copy, and a thread keeps a few batches
ready, so that ``next()`` is one copy. The batches are the same as without the thread, in the same
order. It knows nothing of the judge: a submission may read the same files by itself.
"""

import atexit
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from packing import pack  # type: ignore[import-not-found]  # mounted beside this file

if TYPE_CHECKING:
    import torch

AHEAD = 4
"""Batches in the ring: one being copied, one being filled, and two ready for a slow refill."""


@dataclass(frozen=True, slots=True)
class Documents:
    """Tokenised documents: i is ``tokens[starts[i] : starts[i + 1]]`` and begins with BOS."""

    tokens: NDArray[np.uint16]
    starts: NDArray[np.int64]

    @classmethod
    def load(cls, folder: Path, split: str) -> "Documents":
        """Map the documents of ``split``, "train" or "val"; nothing is read before it is used."""
        name = "val_" if split == "val" else ""
        tokens = np.load(folder / f"{name}tokens.npy", mmap_mode="r", allow_pickle=False)
        starts = np.load(folder / f"{name}starts.npy", allow_pickle=False)
        return cls(tokens, starts)


def packed(
    documents: Documents, rows: int, width: int, buffer_size: int
) -> Iterator[tuple[NDArray[np.uint16], int]]:
    """Yield batches of packed rows (rows, width) for ever, each with its epoch, counted from 1.

    The epoch is that of the last document drawn, which may wait in the packer's buffer still.
    """
    sizes = np.diff(documents.starts).tolist()
    epoch = 0

    def lengths() -> Iterator[int]:
        nonlocal epoch
        while True:
            epoch += 1
            yield from sizes

    packer = pack(lengths(), width, buffer_size=buffer_size)
    while True:
        pieces = [piece for _ in range(rows) for piece in next(packer)]
        chosen, takes = np.array(pieces, dtype=np.int64).T
        # Piece k goes to out[ends[k] - takes[k] : ends[k]]; index is where each token comes from.
        ends = np.cumsum(takes)
        begins = documents.starts[chosen % len(sizes)] - (ends - takes)
        index = np.arange(rows * width) + np.repeat(begins, takes)
        yield documents.tokens[index].reshape(rows, width), epoch


def batches(
    documents: Documents, rows: int, length: int, buffer_size: int, device: str
) -> Iterator[tuple["torch.Tensor", "torch.Tensor", int]]:
    """Yield (inputs, targets, epoch), packed ahead; int64 (rows, length) on ``device``.

    Inputs and targets are two views of one buffer, which the next batch overwrites.
    """
    import torch

    on_gpu = torch.device(device).type == "cuda"
    # The device by name: a submission may have set another default.
    ring = [
        torch.empty(2, rows, length, dtype=torch.long, device="cpu", pin_memory=on_gpu)
        for _ in range(AHEAD)
    ]
    current = torch.empty(2, rows, length, dtype=torch.long, device=device)
    # Reused like the pinned buffers: a batch's copy has ended when its event says so.
    copied = [torch.cuda.Event() if on_gpu else None for _ in range(AHEAD)]  # type: ignore[no-untyped-call]
    views = [buffer.numpy() for buffer in ring]

    def fill(slot: int, batch: tuple[NDArray[np.uint16], int]) -> int:
        if (event := copied[slot]) is not None:
            event.synchronize()
        views[slot][0], views[slot][1] = batch[0][:, :-1], batch[0][:, 1:]
        return batch[1]

    source = packed(documents, rows, length + 1, buffer_size)
    with closing(Ahead(source, fill, AHEAD)) as ahead:
        while True:
            slot, epoch = ahead.take()
            current.copy_(ring[slot], non_blocking=True)
            if (event := copied[slot]) is not None:
                event.record()
            ahead.give_back(slot)
            yield current[0], current[1], epoch


class Ahead:
    """A thread that fills the slots of a ring in turn, as far ahead as there are free slots."""

    def __init__(self, source: Iterator[Any], fill: Callable[[int, Any], int], slots: int) -> None:
        self._free: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[tuple[int, int] | BaseException] = queue.SimpleQueue()
        for slot in range(slots):
            self._free.put(slot)
        self._thread = threading.Thread(
            target=self._work, args=(source, fill), name="loader", daemon=True
        )
        self._thread.start()
        # A daemon thread still inside torch while the interpreter goes down can crash it.
        atexit.register(self.close)

    def take(self) -> tuple[int, int]:
        """Return the next slot filled, and what ``fill`` returned. Raises what the thread did."""
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def give_back(self, slot: int) -> None:
        """Say that a slot may be filled again."""
        self._free.put(slot)

    def close(self) -> None:
        """Stop the thread and wait for its end. Idempotent."""
        atexit.unregister(self.close)
        self._free.put(None)
        self._thread.join()

    def _work(self, source: Iterator[Any], fill: Callable[[int, Any], int]) -> None:
        try:
            for item in source:
                slot = self._free.get()
                if slot is None:
                    return
                self._ready.put((slot, fill(slot, item)))
        except BaseException as error:  # noqa: BLE001  # handed to the thread that waits
            self._ready.put(error)
