"""The judge's side of reading logits that stay on the GPU, in memory that belongs to the candidate.

The judge itself never touches the GPU: a throw-away worker process (``scorers.gpu_worker``) opens
the candidate's buffer, copies it and does the arithmetic. If the worker fails, a second worker is
started without the candidate's buffer: if that works, the submission is at fault, else the judge.
A worker takes seconds to start, so it starts while the candidate trains.
"""

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple
from fcntl import F_ADD_SEALS, F_SEAL_SHRINK, fcntl
from mmap import mmap
from typing import NoReturn

import numpy as np

from harness.base.errors import JudgeError
from harness.base.text import clean
from scorers import child, gpu_worker
from scorers.candidate.device_buffer import HANDLE_BYTES
from scorers.gpu_worker import COPIED, DONE, MAGIC, NO_MEMORY, OPEN, READ, REPLY, REQUEST, ReadSizes
from scorers.judge import Refused
from scorers.reading import HostReader, LogitsReader, ReadRequest, ReadResult
from scorers.score import Reason
from scorers.wire import LogitsBuffer, ProtocolError

START_S = 120.0
"""Limit for the worker to import torch, compile its kernel and pass its self-check."""

READ_S = 60.0
"""Limit for reading one batch, which takes milliseconds."""

LARGEST_BUFFER = 1 << 40
BOARD_STEP = 16 << 20
"""The board, memory shared with the worker, grows in whole steps of this size. So it is mapped and
pinned again a few times at most."""

UNREAD = "cannot be read"
REMEDY = "harness doctor; nvidia-smi; then harness rescore"


class GpuReader:
    """Reads float16 logits (rows, positions, vocabulary) from a buffer of the candidate.

    The constructor starts the worker and does not wait for it; ``open`` names the buffer. ``gpu``:
    UUID of the device. ``stand_in``: for tests, the descriptor of shared memory that replaces the
    buffer and is read on the CPU.

    Every method raises ProtocolError if the claim or the buffer is at fault, Refused if the
    candidate leaves too little memory to read it, JudgeError if the worker fails by itself.
    """

    def __init__(
        self,
        vocabulary: int,
        gpu: str,
        *,
        stand_in: int | None = None,
        read_s: float = READ_S,
    ) -> None:
        self._vocabulary, self._read_s = vocabulary, read_s
        self._gpu, self._stand_in = gpu, stand_in
        self._bytes, self.way = 0, ""
        self._sizes: ReadSizes | None = None
        self._answers = np.empty(0, np.float32)
        self._board_fd = os.memfd_create("board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._board: mmap | None = None
        self._worker: _Worker | None = None
        try:
            fcntl(self._board_fd, F_ADD_SEALS, F_SEAL_SHRINK)  # a shrunk mapping kills the judge
            self._worker = self._spawn()
        except BaseException:
            self.close()
            raise

    def open(self, claim: Mapping[str, object]) -> None:
        """Wait until the worker has started, then open the buffer that ``claim`` names."""
        handle, self._bytes = device_buffer(claim)
        try:
            self.way = self._running.started()
        except _Failure:  # not yet the candidate's buffer: a new worker may succeed
            self._running.close()
            self._worker, self.way = self._start()
        failing = "cannot be opened"
        self._send(failing, OPEN, ReadSizes(0, 0, 0, 0, 0), self._bytes, handle)
        self._wait(failing, DONE)

    def begin(self, question: ReadRequest) -> None:
        """See ``scorers.reading.LogitsReader``."""
        rows, positions = question.targets.shape
        wanted = rows * positions * self._vocabulary * 2
        if wanted > self._bytes:
            raise ProtocolError(f"the device buffer is of {self._bytes} bytes, not of {wanted}")
        for tokens in (question.targets, question.columns, question.picks[:, 2]):
            if tokens.size and not 0 <= tokens.min() <= tokens.max() < self._vocabulary:
                raise JudgeError("Hidden rows hold tokens outside of the vocabulary.")
        self._sizes = ReadSizes(
            rows, positions, len(question.columns), len(question.sketched), len(question.picks)
        )
        board = self._fit(self._sizes)
        asked, _ = gpu_worker.flat(board, self._sizes)
        given = (question.targets, question.columns, question.sketched, question.picks)
        for room, array in zip(gpu_worker.cut(asked, self._sizes.asked), given, strict=True):
            room[...] = array
        self._send(UNREAD, READ, self._sizes, len(board))

    def copied(self) -> int:
        """See ``scorers.reading.LogitsReader``."""
        return self._wait(UNREAD, COPIED)

    def reading(self) -> ReadResult:
        """See ``scorers.reading.LogitsReader``."""
        self._wait(UNREAD, DONE)
        if self._board is None or self._sizes is None:
            raise AssertionError("asked before begin")
        _, answered = gpu_worker.flat(self._board, self._sizes)
        if len(self._answers) < len(answered):  # reused: new pages cost more than the copy
            self._answers = np.empty(len(self._board) // 4, np.float32)
        self._answers[: len(answered)] = answered
        return ReadResult(*gpu_worker.cut(self._answers, self._sizes.answered))

    def close(self) -> None:
        """End the worker and release the buffer. Idempotent."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        if self._board_fd >= 0:
            os.close(self._board_fd)
            self._board_fd = -1
        self._board = None

    @property
    def _running(self) -> "_Worker":
        if self._worker is None:
            raise AssertionError("asked after close")
        return self._worker

    def _fit(self, sizes: ReadSizes) -> mmap:
        """Return the board, enlarged if it is too small for ``sizes``."""
        needed = gpu_worker.board_bytes(sizes)
        if self._board is None or len(self._board) < needed:
            size = -(-needed // BOARD_STEP) * BOARD_STEP
            os.ftruncate(self._board_fd, size)
            self._board = mmap(self._board_fd, size)
        return self._board

    def _spawn(self) -> "_Worker":
        return _Worker(self._vocabulary, self._gpu, self._board_fd, self._stand_in)

    def _start(self) -> tuple["_Worker", str]:
        """Return a new worker that passed its self-check, and how it reads: "fused" or "eager"."""
        worker = self._spawn()
        try:
            return worker, worker.started()
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

    def _send(
        self, failing: str, kind: int, sizes: ReadSizes, size: int, handle: bytes = b""
    ) -> None:
        try:
            self._running.send(REQUEST.pack(MAGIC, kind, *astuple(sizes), size, handle))
        except _Failure as failure:
            self._blame(failing, failure)

    def _wait(self, failing: str, status: int) -> int:
        """Return the number in the worker's reply, which must have ``status``."""
        try:
            return self._running.reply(status, self._read_s)[0]
        except _Failure as failure:
            self._blame(failing, failure)

    def _blame(self, failing: str, failure: "_Failure") -> NoReturn:
        self._running.close()
        if failure.no_memory:
            raise self._starved(failure) from None
        # The control worker runs beside the same candidate, but does not open its buffer.
        control, _ = self._start()
        control.close()
        text = failure.cause.splitlines()[0] if failure.cause else "the reader died"
        raise ProtocolError(f"the device buffer {failing}: {text}") from None

    def _starved(self, failure: "_Failure") -> Refused:
        """Blame the candidate: the GPU is leased to it alone, so nothing else fills its memory."""
        text = f"It left too little GPU memory to read its logits: {failure.cause}"
        return Refused(Reason.OUT_OF_MEMORY, clean(text))


class Readers:
    """Chooses the reader for the buffer that a candidate uses: on its GPU or on the host.

    With a ``gpu``, the GPU reader starts at once, to be ready when the candidate is.
    """

    def __init__(self, vocabulary: int, gpu: str | None) -> None:
        self._vocabulary = vocabulary
        self._on_gpu = None if gpu is None else GpuReader(vocabulary, gpu)

    def open(self, claim: Mapping[str, object], buffer: LogitsBuffer) -> LogitsReader:
        """Return an open reader; ``claim`` is what the candidate sent in its READY frame.

        Raises the same exceptions as GpuReader.
        """
        if self._on_gpu is not None and "device_buffer" in claim:
            self._on_gpu.open(claim)
            return self._on_gpu
        self.close()
        return HostReader(buffer, self._vocabulary)

    def close(self) -> None:
        """Close the GPU reader, if there is one. Idempotent."""
        if self._on_gpu is not None:
            self._on_gpu.close()
            self._on_gpu = None


def device_buffer(claim: Mapping[str, object]) -> tuple[bytes, int]:
    """Return the handle and the size that a claim names. Raises ProtocolError.

    The claim is ``{"device_buffer": {"handle": 128 hex digits, "bytes": int, "dtype":
    "float16"}}``, and comes from untrusted code.
    """
    described = claim.get("device_buffer")
    if not isinstance(described, dict) or set(described) != {"handle", "bytes", "dtype"}:
        raise ProtocolError("the device buffer is told by a handle, bytes and a dtype")
    handle, size, dtype = described["handle"], described["bytes"], described["dtype"]
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
    """The worker reported a failure, died, did not reply in time, or sent an invalid reply."""

    def __init__(self, cause: str, *, no_memory: bool = False) -> None:
        super().__init__(cause)
        self.cause, self.no_memory = cause, no_memory


class _Worker:
    """The worker process and its two pipes."""

    def __init__(self, vocabulary: int, gpu: str, board_fd: int, stand_in: int | None) -> None:
        kept = [board_fd] if stand_in is None else [board_fd, stand_in]
        device = "cuda" if stand_in is None else "cpu"
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTORCH")}
        env["CUDA_VISIBLE_DEVICES"] = gpu
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the worker runs
        program = ["-m", gpu_worker.__name__, device, str(vocabulary), *map(str, kept)]
        self._process = child.start(*program, env=env, errors=self._errors, pass_fds=kept)
        self.pid = self._process.pid

    def send(self, request: bytes) -> None:
        """Send one request, which is small enough for the pipe's buffer. Raises _Failure."""
        try:
            os.write(self._stdin, request)
        except OSError:
            raise self._death() from None

    def started(self) -> str:
        """Wait until the worker has passed its self-check; return how it reads. Raises _Failure."""
        _, way = self.reply(DONE, START_S)
        if self._process.poll() is not None:  # it died after its reply
            raise self._death()
        return way

    def reply(self, status: int, timeout_s: float) -> tuple[int, str]:
        """Return number and text of the next reply. Raises _Failure unless it has ``status``."""
        deadline = time.monotonic() + timeout_s
        magic, said, number, length = REPLY.unpack(self._receive(REPLY.size, deadline))
        if magic != MAGIC or length > gpu_worker.MAX_TEXT:
            raise _Failure("the reader sent no reply")
        text = self._receive(length, deadline).decode(errors="replace")
        if said != status:
            raise _Failure(text, no_memory=said == NO_MEMORY)
        return number, text

    def close(self) -> None:
        """Kill the worker. Idempotent."""
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
        said = child.last_words(self._errors)
        return _Failure(f"the reader died ({self._process.returncode})\n{said}".strip())
