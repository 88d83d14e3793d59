"""The judge's throw-away worker process on the GPU: it opens a candidate's memory and reads it.

    python -m scorers.gpu_worker cuda VOCABULARY BOARD_FD
    python -m scorers.gpu_worker cpu VOCABULARY BOARD_FD SOURCE_FD

The memory belongs to the candidate and may crash this process, but must not harm the judge:
``scorers.gpu_reader`` in the judge's process starts the worker, sends requests, and survives its
death. The judge writes fixed-size records (REQUEST) to stdin and reads replies (REPLY and a text)
from stdout: one when the worker is ready, one for an OPEN, and two for a READ, COPIED and DONE.
Arrays are exchanged in the board, memory that both processes share. Nothing is pickled. On a CPU,
SOURCE_FD is shared memory that replaces the device buffer: the same arithmetic without a GPU, for
tests. Before it opens a candidate's memory, the worker reads known logits of its own and compares
the results with float64 (``control``).
"""

import ctypes
import mmap
import os
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scorers.candidate.device_buffer import HANDLE_BYTES, CudaError, Runtime, wrap
from scorers.gpu_kernel import Normalise, fused
from scorers.reading import LARGEST

if TYPE_CHECKING:
    import torch

MAGIC = b"AIRG"
REQUEST = struct.Struct(f"<4sIIIIIIQ{HANDLE_BYTES}s")
"""Magic, kind, ReadSizes, bytes of buffer (OPEN) or board (READ), handle."""
REPLY = struct.Struct("<4sIQI")
"""Magic, status, number of bad logits (COPIED), bytes of text that follow."""
OPEN, READ = 1, 2
DONE, COPIED, FAILED, NO_MEMORY = range(4)
MAX_TEXT = 4096
NO_MEMORY_SAID = ("out of memory", "cudaErrorMemoryAllocation")
"""How torch and the CUDA runtime report that memory is short."""

CHUNK_BYTES = 256 << 20
"""Size of the private copy: launches cost little, and it fits in what a candidate leaves free."""

EAGER_LOGITS = 1 << 24
"""Logits converted to float32 at a time without the fused kernel: several arrays of 64 MiB."""

TOLERANCE = 1e-4
"""Largest error in ``control``, in nats: float32 sums of 8,192 terms err by about 1e-6."""


Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class ReadSizes:
    """How many of each there are in one ReadRequest and its ReadResult."""

    rows: int
    positions: int
    columns: int
    sketched: int
    picks: int

    @property
    def asked(self) -> Shapes:
        """Shapes of the int64 arrays of a ReadRequest: targets, columns, sketched, picks."""
        return (self.rows, self.positions), (self.columns,), (self.sketched,), (self.picks, 3)

    @property
    def answered(self) -> Shapes:
        """Shapes of the float32 arrays of a ReadResult: nats, sketch, picks."""
        sketch = (self.sketched, self.positions, self.columns)
        return (self.rows, self.positions), sketch, (self.picks,)


def board_bytes(sizes: ReadSizes) -> int:
    """Return how many bytes of board ``flat`` needs."""
    return 8 * sum(map(prod, sizes.asked)) + 4 * sum(map(prod, sizes.answered))


def flat(
    board: mmap.mmap | bytearray, sizes: ReadSizes
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the question and the answer parts of the board, each as one flat array."""
    asked = np.frombuffer(board, np.int64, sum(map(prod, sizes.asked)))
    answers = sum(map(prod, sizes.answered))
    return asked, np.frombuffer(board, np.float32, answers, offset=asked.nbytes)


def cut(whole: Any, shapes: Shapes) -> Iterator[Any]:  # noqa: ANN401  # arrays of numpy or torch
    """Yield consecutive views of a flat array or tensor, one for each of ``shapes``."""
    at = 0
    for shape in shapes:
        yield whole[at : at + prod(shape)].reshape(shape)
        at += prod(shape)


def eager(
    source: "torch.Tensor", copy: "torch.Tensor", normaliser: "torch.Tensor", bad: "torch.Tensor"
) -> None:
    """Copy float16 (positions, vocabulary), zero the source, and read the copy, in plain torch.

    Writes for each position, float32 (positions,): the log-sum-exp to ``normaliser``, and to
    ``bad`` how many logits are not finite or beyond LARGEST.
    """
    import torch

    copy.copy_(source)
    source.zero_()
    step = max(1, EAGER_LOGITS // copy.shape[1])
    for first in range(0, len(copy), step):
        some = slice(first, first + step)
        x = copy[some].float()
        bad[some] = (~(x.abs() <= LARGEST)).sum(dim=1)
        normaliser[some] = torch.logsumexp(x, dim=1)


class Arithmetic:
    """Reads logits through a private copy, a chunk of rows at a time."""

    def __init__(
        self, device: str, vocabulary: int, normalise: Normalise, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        import torch

        self._device, self._vocabulary, self._normalise = device, vocabulary, normalise
        self._chunk_bytes = chunk_bytes
        # Allocated at the first read: until then the memory is left to the candidate.
        self._copy = torch.empty(0, dtype=torch.float16, device=device)

    def read(
        self,
        source: "torch.Tensor",
        board: mmap.mmap | bytearray,
        sizes: ReadSizes,
        copied: Callable[[int], None],
    ) -> None:
        """Read a batch from flat float16 ``source``, zero it, and write the answers to the board.

        When the source will not be read any more, calls ``copied`` with the number of logits that
        are not finite or beyond LARGEST.
        """
        import torch

        row = sizes.positions * self._vocabulary
        step = min(sizes.rows, max(1, self._chunk_bytes // (2 * row)))
        if len(self._copy) < step * row:
            self._copy = torch.empty(step * row, dtype=torch.float16, device=self._device)
        asked, answered = flat(board, sizes)
        edges = np.arange(0, sizes.rows + step, step)
        _, _, sketch_rows, all_picks = cut(asked, sizes.asked)
        sketch_edges = np.searchsorted(sketch_rows, edges).tolist()
        pick_edges = np.searchsorted(all_picks[:, 0], edges).tolist()
        given = torch.from_numpy(asked).to(self._device)
        targets, columns, sketched, picks = cut(given, sizes.asked)
        answers = torch.empty(len(answered), dtype=torch.float32, device=self._device)
        nats, sketch, found = cut(answers, sizes.answered)
        normaliser, bad = torch.empty_like(nats), torch.empty_like(nats)
        positions = torch.arange(sizes.positions, device=self._device)[:, None]
        for number, first in enumerate(range(0, sizes.rows, step)):
            rows = slice(first, min(sizes.rows, first + step))
            count = rows.stop - first
            piece = source[first * row : rows.stop * row].view(-1, self._vocabulary)
            copy = self._copy[: count * row].view(-1, self._vocabulary)
            self._normalise(piece, copy, normaliser[rows].view(-1), bad[rows].view(-1))
            x = copy.view(count, sizes.positions, self._vocabulary)
            own = x.gather(2, targets[rows, :, None])[:, :, 0]
            torch.sub(normaliser[rows], own, out=nats[rows])
            some = slice(sketch_edges[number], sketch_edges[number + 1])
            if some.stop > some.start:
                at = sketched[some, None, None]
                sketch[some] = x[at - first, positions, columns] - normaliser[at, positions]
            some = slice(pick_edges[number], pick_edges[number + 1])
            if some.stop > some.start:
                at, position, token = picks[some].unbind(1)
                found[some] = x[at - first, position, token] - normaliser[at, position]
        copied(int(bad.sum(dtype=torch.float64).item()))  # item() waits for the GPU
        torch.from_numpy(answered).copy_(answers)


def control(device: str, vocabulary: int, normalise: Normalise) -> None:
    """Self-check: read known logits of our own. Raises ArithmeticError if a number is wrong."""
    import torch

    rng = np.random.default_rng(0)
    shape = (3, 48, vocabulary)
    sizes = ReadSizes(*shape[:2], columns=min(32, vocabulary), sketched=2, picks=64)
    board = bytearray(board_bytes(sizes))
    asked, answered = flat(board, sizes)
    targets, columns, sketched, picks = cut(asked, sizes.asked)
    targets[...] = rng.integers(0, vocabulary, targets.shape)
    columns[...] = rng.permutation(vocabulary)[: sizes.columns]
    sketched[...] = 0, 2
    picks[...] = rng.integers(0, shape, picks.shape)
    picks[:, 0].sort()
    answered.fill(np.nan)
    logits = rng.normal(0, 5, shape).astype(np.float16)
    source = torch.from_numpy(logits.reshape(-1).copy()).to(device)
    # Chunks of two rows: the last chunk is short, and both chunks have sketched rows.
    arithmetic = Arithmetic(device, vocabulary, normalise, chunk_bytes=4 * shape[1] * vocabulary)
    counted: list[int] = []
    arithmetic.read(source, board, sizes, counted.append)
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(axis=2, keepdims=True))
    wanted = [
        -np.take_along_axis(exact, targets[:, :, None], axis=2)[:, :, 0],
        exact[sketched][:, :, columns],
        exact[tuple(picks.T)],
    ]
    got = cut(answered, sizes.answered)
    error = max(float(np.abs(g - w).max()) for g, w in zip(got, wanted, strict=True))
    if not error < TOLERANCE or counted != [0]:  # ``not <``: NaN also counts as wrong
        raise ArithmeticError(f"known logits are read with an error of {error:.2g}, {counted} bad")
    if torch.count_nonzero(source).item():
        raise ArithmeticError("what was read is still there")
    planted = torch.zeros((2, vocabulary), dtype=torch.float16, device=device)
    planted.view(-1)[:4] = torch.tensor([np.nan, np.inf, -np.inf, 2 * LARGEST])
    normaliser, bad = torch.empty((2, 2), dtype=torch.float32, device=device)
    normalise(planted, torch.empty_like(planted), normaliser, bad)
    if (seen := int(bad.sum().item())) != 4:
        raise ArithmeticError(f"of 4 logits that are not finite, {seen} are seen")


class GpuWorker:
    """State of the process: its arithmetic, the board, and the candidate's memory once open."""

    def __init__(self, device: str, vocabulary: int, board_fd: int, source_fd: int | None) -> None:
        import torch

        self._board_fd, self._source_fd = board_fd, source_fd
        self._board: mmap.mmap | None = None
        self._pinned = False
        self._source: torch.Tensor | None = None
        self._runtime = Runtime() if device == "cuda" else None
        self.way, normalise = _choose(device, vocabulary)
        self._arithmetic = Arithmetic(device, vocabulary, normalise)
        if device == "cuda":
            torch.cuda.empty_cache()  # leave the memory to the candidate, which may be training

    def open(self, handle: bytes, size: int) -> None:
        """Open the candidate's buffer of ``size`` bytes. Errors of CUDA and torch pass through."""
        if self._runtime is None:
            import torch

            if self._source_fd is None:
                raise ValueError("there is no memory to open")
            memory = mmap.mmap(self._source_fd, size)
            self._source = torch.frombuffer(memory, dtype=torch.float16)
            return
        pointer = self._runtime.open(handle)
        known = _allocated(pointer)
        if known is not None and known < size:
            raise ValueError(f"it is of {known} bytes, not of {size}")
        self._source = wrap(pointer, size // 2)

    def read(self, sizes: ReadSizes, size: int, copied: Callable[[int], None]) -> None:
        """Read a batch into the board of ``size`` bytes; see ``Arithmetic.read``."""
        if self._source is None:
            raise ValueError("read before open")
        if self._board is None or len(self._board) != size:
            self._map(size)
        if self._board is None:
            raise AssertionError
        self._arithmetic.read(self._source, self._board, sizes, copied)

    def _map(self, size: int) -> None:
        if self._board is not None and self._pinned and self._runtime is not None:
            self._runtime.unpin(_address(self._board))
        self._board, self._pinned = mmap.mmap(self._board_fd, size), False
        if self._runtime is None:
            return
        try:
            self._runtime.pin(_address(self._board), size)
            self._pinned = True
        except CudaError as error:  # reading is then slower, but still correct
            print(f"the board is not pinned: {error}", file=sys.stderr)


def _address(board: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(board))


def _choose(device: str, vocabulary: int) -> tuple[str, Normalise]:
    """Return name and function of the fastest way to read that passes ``control``, or raise."""
    if device == "cuda":
        try:
            kernel = fused()
            control(device, vocabulary, kernel)
        except Exception as error:  # noqa: BLE001  # Triton can fail in many ways, and is optional
            print(f"no fused kernel: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            return "fused", kernel
    control(device, vocabulary, eager)
    return "eager", eager


def _allocated(pointer: int) -> int | None:
    """Return how many bytes there are from a device address to its allocation's end, if known."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        base, size = ctypes.c_void_p(), ctypes.c_size_t()
        find = driver.cuMemGetAddressRange_v2
        find.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t)]
        find.argtypes += [ctypes.c_void_p]
        if find(ctypes.byref(base), ctypes.byref(size), pointer):
            return None
    except (OSError, AttributeError):
        return None
    return int(base.value or 0) + size.value - pointer


def main(argv: list[str]) -> None:
    """Answer the judge's requests until it closes the pipe or something fails."""
    answers = os.dup(1)
    os.dup2(2, 1)  # text that libraries print must not mix with the records

    def reply(status: int, number: int = 0, text: str = "") -> None:
        said = text.encode()[:MAX_TEXT]
        os.write(answers, REPLY.pack(MAGIC, status, number, len(said)) + said)

    try:
        device, vocabulary, board_fd, *source_fd = argv
        source = int(source_fd[0]) if source_fd else None
        worker = GpuWorker(device, int(vocabulary), int(board_fd), source)
        reply(DONE, text=worker.way)
        while len(request := sys.stdin.buffer.read(REQUEST.size)) == REQUEST.size:
            _, kind, *sizes, size, handle = REQUEST.unpack(request)
            if kind == OPEN:
                worker.open(handle, size)
            else:
                worker.read(ReadSizes(*sizes), size, lambda bad: reply(COPIED, bad))
            reply(DONE)
    except BaseException as error:  # noqa: BLE001  # the judge decides whose fault it is
        text = f"{type(error).__name__}: {error}"
        full = any(said in text for said in NO_MEMORY_SAID)
        reply(NO_MEMORY if full else FAILED, text=text)
    # The destructors of a CUDA context may hang if the candidate's memory is gone.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
