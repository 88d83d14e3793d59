"""The judge's throw-away process on the GPU: it opens a candidate's memory and reads it.

    python -m scorers.gpu_worker cuda VOCABULARY BOARD_FD
    python -m scorers.gpu_worker cpu VOCABULARY BOARD_FD SOURCE_FD

The memory belongs to the candidate, so whatever it does to this process must not reach the judge:
``scorers.gpu_reader`` starts it, asks it, and survives it. The judge sends fixed records (REQUEST)
to stdin and gets one record and a text for each from stdout (REPLY); arrays lie in the board,
memory that both share. Nothing is pickled. On a CPU, SOURCE_FD is shared memory that stands in for
the device buffer: the same arithmetic without a GPU, for tests.

Before it touches anything of a candidate's it reads a buffer of its own, and compares with float64.
"""

import ctypes
import mmap
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scorers.reading import LARGEST
from tasks.autoresearch.runtime.device_buffer import HANDLE_BYTES, CudaError, Runtime, wrap

if TYPE_CHECKING:
    import torch

    Normalise = Callable[["torch.Tensor", "torch.Tensor"], tuple["torch.Tensor", "torch.Tensor"]]

MAGIC = b"AIRG"
REQUEST = struct.Struct(f"<4sIIIIIQ{HANDLE_BYTES}s")
"""Magic, kind, rows, positions, columns, picks; bytes of buffer (OPEN) or board (READ); handle."""
REPLY = struct.Struct("<4sIQI")
"""Magic, status, number of bad logits (READ), bytes of text that follow."""
OPEN, READ = 1, 2
DONE, FAILED, NO_MEMORY = range(3)
MAX_TEXT = 4096
NO_MEMORY_SAID = ("out of memory", "cudaErrorMemoryAllocation")
"""By torch, and by the CUDA runtime."""

CHUNK_BYTES = 256 << 20
"""Of the private copy. Large against a launch, small against the memory that a candidate leaves."""

EAGER_LOGITS = 1 << 24
"""Logits in float32 at a time without the fused kernel: 64 MiB, several times over."""

TOLERANCE = 1e-4
"""Of the control, in nats: float32 sums of 8,192 terms err by about 1e-6."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one reading. ``columns`` and ``picks``: how many."""

    rows: int
    positions: int
    columns: int
    picks: int


@dataclass(frozen=True, slots=True)
class Arrays:
    """The board of one reading: what is asked (int64), and the answers (float32).

    targets (rows, positions), columns (k,), picks (n, 3); nats (rows, positions), sketch (rows,
    positions, k), found (n,).
    """

    targets: NDArray[np.int64]
    columns: NDArray[np.int64]
    picks: NDArray[np.int64]
    nats: NDArray[np.float32]
    sketch: NDArray[np.float32]
    found: NDArray[np.float32]


def board_bytes(sizes: Sizes) -> int:
    """Return the bytes that ``arrays`` takes."""
    n = sizes.rows * sizes.positions
    words = n + sizes.columns + 3 * sizes.picks
    return 8 * words + 4 * (n * (1 + sizes.columns) + sizes.picks)


def arrays(board: mmap.mmap | bytearray, sizes: Sizes) -> Arrays:
    """Lay the arrays of a reading out in the board, one after the other."""
    n, k, picks = sizes.rows * sizes.positions, sizes.columns, sizes.picks
    shape = (sizes.rows, sizes.positions)
    asked = np.frombuffer(board, np.int64, n + k + 3 * picks)
    answered = np.frombuffer(board, np.float32, n + n * k + picks, offset=asked.nbytes)
    return Arrays(
        targets=asked[:n].reshape(shape),
        columns=asked[n : n + k],
        picks=asked[n + k :].reshape(picks, 3),
        nats=answered[:n].reshape(shape),
        sketch=answered[n : n + n * k].reshape(*shape, k),
        found=answered[n + n * k :],
    )


def eager(source: "torch.Tensor", copy: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Copy float16 (rows, vocabulary), zero the source, and read the copy.

    Return log-sum-exp of each row, float32 (rows,), and how many logits are not finite or beyond
    LARGEST.
    """
    import torch

    copy.copy_(source)
    source.zero_()
    normaliser = torch.empty(len(copy), dtype=torch.float32, device=copy.device)
    bad = torch.zeros((), dtype=torch.float64, device=copy.device)
    step = max(1, EAGER_LOGITS // copy.shape[1])
    for part, out in zip(torch.split(copy, step), torch.split(normaliser, step), strict=True):
        x = part.float()
        bad += (~(x.abs() <= LARGEST)).sum()
        out.copy_(torch.logsumexp(x, dim=1))
    return normaliser, bad


class Arithmetic:
    """Reads logits through a private copy, a chunk of positions at a time."""

    def __init__(
        self, device: str, vocabulary: int, normalise: "Normalise", chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        import torch

        self._device, self._vocabulary, self._normalise = device, vocabulary, normalise
        self._chunk = max(1, chunk_bytes // (2 * vocabulary))
        size = self._chunk * vocabulary
        self._copy = torch.empty(size, dtype=torch.float16, device=device)

    def read(self, source: "torch.Tensor", board: Arrays) -> int:
        """Read a batch from flat float16 ``source``, which is zeroed; fill in the answers.

        Return how many logits are not finite or beyond LARGEST.
        """
        import torch

        def put(array: NDArray[np.int64]) -> "torch.Tensor":
            return torch.from_numpy(array).to(self._device)

        n, k, vocabulary = board.targets.size, len(board.columns), self._vocabulary
        at = board.picks[:, 0] * board.targets.shape[1] + board.picks[:, 1]
        order = np.argsort(at, kind="stable")
        edges = np.searchsorted(at[order], np.arange(0, n + self._chunk, self._chunk)).tolist()
        pick_at, pick_token = put(at[order]), put(board.picks[order, 2])
        targets, columns = put(board.targets.reshape(-1)), put(board.columns)
        nats = torch.empty(n, dtype=torch.float32, device=self._device)
        sketch = torch.empty((n, k), dtype=torch.float32, device=self._device)
        found = torch.empty(len(at), dtype=torch.float32, device=self._device)
        bad = torch.zeros((), dtype=torch.float64, device=self._device)
        for number, first in enumerate(range(0, n, self._chunk)):
            end = min(n, first + self._chunk)
            piece = source[first * vocabulary : end * vocabulary].view(-1, vocabulary)
            x = self._copy[: piece.numel()].view(-1, vocabulary)
            normaliser, wrong = self._normalise(piece, x)
            bad += wrong
            own = x.gather(1, targets[first:end, None])[:, 0].float()
            nats[first:end] = normaliser - own
            sketch[first:end] = x.index_select(1, columns).float() - normaliser[:, None]
            some = slice(edges[number], edges[number + 1])
            here = pick_at[some] - first
            found[some] = x[here, pick_token[some]].float() - normaliser[here]
        torch.from_numpy(board.nats.reshape(-1)).copy_(nats)
        torch.from_numpy(board.sketch.reshape(n, k)).copy_(sketch)
        board.found[order] = found.cpu().numpy()
        return int(bad.item())


def control(device: str, vocabulary: int, normalise: "Normalise") -> None:
    """Read known logits from memory of our own. Raises ArithmeticError where a number is wrong."""
    import torch

    rng = np.random.default_rng(0)
    sizes = Sizes(rows=3, positions=43, columns=min(32, vocabulary), picks=64)
    board = arrays(bytearray(board_bytes(sizes)), sizes)
    board.targets[...] = rng.integers(0, vocabulary, board.targets.shape)
    board.columns[...] = rng.permutation(vocabulary)[: sizes.columns]
    board.picks[...] = rng.integers(0, (sizes.rows, sizes.positions, vocabulary), (sizes.picks, 3))
    board.nats.fill(np.nan)
    board.sketch.fill(np.nan)
    board.found.fill(np.nan)
    shape = (sizes.rows, sizes.positions, vocabulary)
    logits = rng.normal(0, 5, shape).astype(np.float16)
    source = torch.from_numpy(logits.reshape(-1).copy()).to(device)
    # Chunks of 50 positions: the last one is short, and picks fall into all of them.
    arithmetic = Arithmetic(device, vocabulary, normalise, chunk_bytes=100 * vocabulary)
    bad = arithmetic.read(source, board)
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(axis=2, keepdims=True))
    wanted = -np.take_along_axis(exact, board.targets[:, :, None], axis=2)[:, :, 0]
    pairs = [(board.nats, wanted), (board.sketch, exact[:, :, board.columns])]
    pairs.append((board.found, exact[tuple(board.picks.T)]))
    error = max(float(np.abs(got - want).max()) for got, want in pairs)
    if not error < TOLERANCE or bad:  # NaN is wrong
        raise ArithmeticError(f"known logits are read with an error of {error:.2g}, {bad} bad")
    if torch.count_nonzero(source).item():
        raise ArithmeticError("what was read is still there")
    planted = torch.zeros((2, vocabulary), dtype=torch.float16, device=device)
    planted.view(-1)[:4] = torch.tensor([np.nan, np.inf, -np.inf, 2 * LARGEST])
    counted = int(normalise(planted, torch.empty_like(planted))[1].item())
    if counted != 4:
        raise ArithmeticError(f"of 4 logits that are not finite, {counted} are seen")


class Worker:
    """What the process holds: its arithmetic, the board, and the candidate's memory once open."""

    def __init__(self, device: str, vocabulary: int, board_fd: int, source_fd: int | None) -> None:
        import torch

        self._board_fd, self._source_fd = board_fd, source_fd
        self._board: mmap.mmap | None = None
        self._pinned = False
        self._source: torch.Tensor | None = None
        self._runtime = Runtime() if device == "cuda" else None
        self.way, normalise = _choose(device, vocabulary)
        self._arithmetic = Arithmetic(device, vocabulary, normalise)

    def open(self, handle: bytes, size: int) -> None:
        """Open the candidate's buffer of ``size`` bytes. Raises whatever goes wrong."""
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

    def read(self, sizes: Sizes, size: int) -> int:
        """Read a batch into the board of ``size`` bytes; return how many logits are bad."""
        if self._source is None:
            raise ValueError("read before open")
        if self._board is None or len(self._board) != size:
            self._map(size)
        if self._board is None:
            raise AssertionError
        return self._arithmetic.read(self._source, arrays(self._board, sizes))

    def _map(self, size: int) -> None:
        if self._board is not None and self._pinned and self._runtime is not None:
            self._runtime.unpin(_address(self._board))
        self._board, self._pinned = mmap.mmap(self._board_fd, size), False
        if self._runtime is None:
            return
        try:
            self._runtime.pin(_address(self._board), size)
            self._pinned = True
        except CudaError as error:  # slower, and right
            print(f"the board is not pinned: {error}", file=sys.stderr)


def _address(board: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(board))


def _choose(device: str, vocabulary: int) -> tuple[str, "Normalise"]:
    """Return the fastest way to read that passes the control. Raises what the last one raised."""
    if device == "cuda":
        from scorers.gpu_kernel import fused

        try:
            kernel = fused()
            control(device, vocabulary, kernel)
        except Exception as error:  # noqa: BLE001  # Triton fails in many ways, and is not needed
            print(f"no fused kernel: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            return "fused", kernel
    control(device, vocabulary, eager)
    return "eager", eager


def _allocated(pointer: int) -> int | None:
    """Return how many bytes lie at a device address to the end of its allocation, if known."""
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
    """Serve the judge until it hangs up, or something fails."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not come between the records

    def reply(status: int, number: int = 0, text: str = "") -> None:
        said = text.encode()[:MAX_TEXT]
        os.write(answers, REPLY.pack(MAGIC, status, number, len(said)) + said)

    try:
        device, vocabulary, board_fd, *source_fd = argv
        source = int(source_fd[0]) if source_fd else None
        worker = Worker(device, int(vocabulary), int(board_fd), source)
        reply(DONE, text=worker.way)
        while len(request := sys.stdin.buffer.read(REQUEST.size)) == REQUEST.size:
            _, kind, rows, positions, columns, picks, size, handle = REQUEST.unpack(request)
            if kind == OPEN:
                worker.open(handle, size)
                reply(DONE)
            else:
                reply(DONE, worker.read(Sizes(rows, positions, columns, picks), size))
    except BaseException as error:  # noqa: BLE001  # told to the judge, which decides whose it is
        text = f"{type(error).__name__}: {error}"
        full = any(said in text for said in NO_MEMORY_SAID)
        reply(NO_MEMORY if full else FAILED, text=text)
    # A context whose memory is gone may hang in its destructors.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
