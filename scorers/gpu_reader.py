"""Reads logits that stay on the GPU, in memory that belongs to the candidate.

The judge itself never touches the GPU: a throw-away worker (``scorers.gpu_worker``) opens the
candidate's buffer, copies it and does the arithmetic. What goes wrong there is the submission's
fault if a worker without it works, and ours if that fails too.
"""

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from fcntl import F_ADD_SEALS, F_SEAL_SHRINK, fcntl
from mmap import mmap
from pathlib import Path

from harness.errors import JudgeError
from scorers import gpu_worker
from scorers.gpu_worker import DONE, MAGIC, NO_MEMORY, OPEN, READ, REPLY, REQUEST, Sizes
from scorers.judge import Refused
from scorers.reading import Ints, Reading
from scorers.score import Reason
from scorers.wire import ProtocolError
from tasks.autoresearch.runtime.device_buffer import HANDLE_BYTES

START_S = 120.0
"""For the worker to import torch, compile its kernel and pass its control."""

READ_S = 60.0
"""For one batch, which takes milliseconds."""

LARGEST_BUFFER = 1 << 40
BOARD_STEP = 16 << 20
"""The board grows by whole steps, so that it is mapped and pinned anew a few times at most."""

REMEDY = "harness doctor; nvidia-smi; then harness rescore"


class GpuReader:
    """Reads float16 logits (rows, positions, vocabulary) from the buffer that ``claim`` names.

    ``gpu``: UUID of the device. ``stand_in``: descriptor of shared memory that takes the
    buffer's place, read on the CPU, for tests.

    Making one takes seconds. Raises ProtocolError where the claim or the buffer is at fault,
    Refused where the candidate leaves no memory to read it, JudgeError where the worker does
    not work by itself.
    """

    def __init__(
        self,
        claim: Mapping[str, object],
        vocabulary: int,
        gpu: str,
        *,
        stand_in: int | None = None,
        read_s: float = READ_S,
    ) -> None:
        handle, self._bytes = device_buffer(claim)
        self._vocabulary, self._read_s = vocabulary, read_s
        self._gpu, self._stand_in = gpu, stand_in
        self._board_fd = os.memfd_create("board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl(self._board_fd, F_ADD_SEALS, F_SEAL_SHRINK)  # a shrunk mapping kills the judge
        self._board: mmap | None = None
        self._worker: _Worker | None = None
        try:
            self._worker, self.way = self._start()
            self._ask("cannot be opened", OPEN, Sizes(0, 0, 0, 0), self._bytes, handle)
        except BaseException:
            self.close()
            raise

    def read(self, targets: Ints, columns: Ints, picks: Ints) -> Reading:
        """Read a batch; see ``scorers.reading.Reader``. The arrays last until the next read.

        Raises ProtocolError, Refused, JudgeError.
        """
        rows, positions = targets.shape
        wanted = rows * positions * self._vocabulary * 2
        if wanted > self._bytes:
            raise ProtocolError(f"the device buffer is of {self._bytes} bytes, not of {wanted}")
        for tokens in (targets, columns, picks[:, 2]):
            if tokens.size and not 0 <= tokens.min() <= tokens.max() < self._vocabulary:
                raise JudgeError("Hidden rows hold tokens outside of the vocabulary.")
        sizes = Sizes(rows, positions, len(columns), len(picks))
        board, size = self._fit(sizes)
        board.targets[...], board.columns[...], board.picks[...] = targets, columns, picks
        bad = self._ask("cannot be read", READ, sizes, size)
        return Reading(nats=board.nats, sketch=board.sketch, picks=board.found, bad=bad)

    def close(self) -> None:
        """End the worker and let go of the buffer. Idempotent."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        if self._board_fd >= 0:
            os.close(self._board_fd)
            self._board_fd = -1
        self._board = None  # unmapped with the last reading

    @property
    def worker_pid(self) -> int | None:
        """The worker's process id, None after ``close``."""
        return None if self._worker is None else self._worker.pid

    def _fit(self, sizes: Sizes) -> tuple[gpu_worker.Arrays, int]:
        """Return the board's arrays, in a board that is large enough, and its bytes."""
        needed = gpu_worker.board_bytes(sizes)
        if self._board is None or len(self._board) < needed:
            size = -(-needed // BOARD_STEP) * BOARD_STEP
            os.ftruncate(self._board_fd, size)
            self._board = mmap(self._board_fd, size)
        return gpu_worker.arrays(self._board, sizes), len(self._board)

    def _start(self) -> tuple["_Worker", str]:
        """Return a worker that has passed its control, and how it reads."""
        worker = _Worker(self._vocabulary, self._gpu, self._board_fd, self._stand_in)
        try:
            _, text = worker.reply(START_S)
        except _Failure as failure:
            worker.close()
            if failure.no_memory:
                raise self._starved(failure) from None
            raise JudgeError(
                "The judge cannot compute on the GPU.", cause=failure.cause, remedy=REMEDY
            ) from None
        except BaseException:
            worker.close()
            raise
        return worker, text

    def _ask(self, failing: str, kind: int, sizes: Sizes, size: int, handle: bytes = b"") -> int:
        if self._worker is None:
            raise AssertionError("asked after close")
        numbers = (sizes.rows, sizes.positions, sizes.columns, sizes.picks)
        try:
            self._worker.send(REQUEST.pack(MAGIC, kind, *numbers, size, handle))
            bad, _ = self._worker.reply(self._read_s)
        except _Failure as failure:
            self._worker.close()
            if failure.no_memory:
                raise self._starved(failure) from None
            # The candidate is still there: only its buffer is left out.
            control, _ = self._start()
            control.close()
            text = failure.cause.splitlines()[0] if failure.cause else "the reader died"
            raise ProtocolError(f"the device buffer {failing}: {text}") from None
        return bad

    def _starved(self, failure: "_Failure") -> Refused:
        """The GPU is leased to the candidate alone: what fills its memory is the candidate's."""
        text = f"It left too little GPU memory to read its logits: {failure.cause}"
        return Refused(Reason.OUT_OF_MEMORY, text)


def device_buffer(claim: Mapping[str, object]) -> tuple[bytes, int]:
    """Return the handle and the size that a claim names. Raises ProtocolError.

    The claim is ``{"device_buffer": {"handle": 128 hex digits, "bytes": int, "dtype":
    "float16"}}``, and a stranger's.
    """
    told = claim.get("device_buffer")
    if not isinstance(told, dict) or set(told) != {"handle", "bytes", "dtype"}:
        raise ProtocolError("the device buffer is told by a handle, bytes and a dtype")
    handle, size, dtype = told["handle"], told["bytes"], told["dtype"]
    if dtype != "float16":
        raise ProtocolError("the device buffer must hold float16")
    if isinstance(size, bool) or not isinstance(size, int) or not 2 <= size <= LARGEST_BUFFER:
        raise ProtocolError("the device buffer's bytes are no size")
    if not isinstance(handle, str) or len(handle) != 2 * HANDLE_BYTES:
        raise ProtocolError(f"the device buffer's handle is not of {HANDLE_BYTES} bytes in hex")
    try:
        raw = bytes.fromhex(handle)
    except ValueError:
        raw = b""
    if len(raw) != HANDLE_BYTES:  # fromhex skips spaces
        raise ProtocolError("the device buffer's handle is not hex")
    return raw, size


class _Failure(Exception):
    """The worker said that it failed, died, fell silent, or sent what is no reply."""

    def __init__(self, cause: str, *, no_memory: bool = False) -> None:
        super().__init__(cause)
        self.cause, self.no_memory = cause, no_memory


class _Worker:
    """The worker process and its two pipes."""

    def __init__(self, vocabulary: int, gpu: str, board_fd: int, stand_in: int | None) -> None:
        kept = [board_fd] if stand_in is None else [board_fd, stand_in]
        device = "cuda" if stand_in is None else "cpu"
        argv = [sys.executable, "-P", "-m", gpu_worker.__name__, device, str(vocabulary)]
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTORCH")}
        env["CUDA_VISIBLE_DEVICES"] = gpu
        paths = [os.environ.get("PYTHONPATH", ""), str(Path(gpu_worker.__file__).parents[1])]
        env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the worker
        self._process = subprocess.Popen(
            [*argv, *map(str, kept)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=env,
            pass_fds=kept,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is the judge's to handle
        )
        self.pid = self._process.pid

    def send(self, request: bytes) -> None:
        """Send one request; it fits into the pipe. Raises _Failure."""
        try:
            os.write(self._stdin, request)
        except OSError:
            raise self._death() from None

    def reply(self, timeout_s: float) -> tuple[int, str]:
        """Return the number and the text of the next reply. Raises _Failure."""
        deadline = time.monotonic() + timeout_s
        magic, status, number, length = REPLY.unpack(self._receive(REPLY.size, deadline))
        if magic != MAGIC or length > gpu_worker.MAX_TEXT:
            raise _Failure("the reader sent no reply")
        text = self._receive(length, deadline).decode(errors="replace")
        if status != DONE:
            raise _Failure(text, no_memory=status == NO_MEMORY)
        return number, text

    def close(self) -> None:
        """Kill it. Idempotent."""
        with suppress(ProcessLookupError):
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    @property
    def _stdin(self) -> int:
        if self._process.stdin is None:
            raise AssertionError("stdin is a pipe")
        return self._process.stdin.fileno()

    def _receive(self, size: int, deadline: float) -> bytes:
        if self._process.stdout is None:
            raise AssertionError("stdout is a pipe")
        taken = bytearray()
        while len(taken) < size:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise _Failure("the reader fell silent")
            chunk = os.read(self._process.stdout.fileno(), size - len(taken))
            if not chunk:
                raise self._death()
            taken += chunk
        return bytes(taken)

    def _death(self) -> _Failure:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 2000))
        said = self._errors.read().decode(errors="replace").strip()
        return _Failure(f"the reader died ({self._process.returncode})\n{said}".strip())
