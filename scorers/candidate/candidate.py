"""The serving side of a submission: it runs inside the sandbox and talks to the judge.

It runs in the submission's own process and is therefore *untrusted*: the judge trusts nothing
that it sends except the logits, and checks the frame that announces them. It needs only numpy and
the standard library, and imports no other harness code, because a sandbox does not contain it.

A runner uses it like this:

    link = Link.connect(path)          # before any code of the submission is imported
    link.progress(step, total, loss)   # now and then; shown to the user as a claim
    link.serve(predict, claim={...})   # answers the judge's batches until it says goodbye

The docstring of ``scorers/wire.py``, the judge's side, describes the protocol.
"""

import contextlib
import json
import math
import mmap
import os
import socket
import struct
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HEADER = struct.Struct("<4sHHII")  # magic, kind, reserved, sequence number, bytes that follow
MAGIC = b"AIRA"
HELLO, PROGRESS, READY, BATCH, LOGITS, FAIL, BYE = range(1, 8)
BATCH_HEAD = struct.Struct("<III")  # rows, length, classes
MAX_TEXT = 16_384


class Link:
    """The connection to the judge, and the shared buffer that logits are written to."""

    def __init__(self, sock: socket.socket, buffer: mmap.mmap) -> None:
        self._sock = sock
        self._buffer = buffer
        self._last_progress = 0.0

    @classmethod
    def connect(cls, path: str) -> "Link":
        """Connect to the judge's socket and take over the buffer it hands out."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Through the folder's descriptor: the full path may be longer than a socket's path may be.
        folder = os.open(Path(path).parent, os.O_PATH)
        sock.connect(f"/proc/self/fd/{folder}/{Path(path).name}")
        os.close(folder)
        fds = array("i")
        _, ancillary, _, _ = sock.recvmsg(HEADER.size, socket.CMSG_SPACE(fds.itemsize))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: fds.itemsize])
        buffer = mmap.mmap(fds[0], os.fstat(fds[0]).st_size)
        os.close(fds[0])
        return cls(sock, buffer)

    def progress(self, step: int, total: int, loss: float, *, every_s: float = 0.5) -> None:
        """Tell the judge how far training is, at most once in ``every_s`` seconds."""
        now = time.monotonic()
        if now - self._last_progress >= every_s:
            self._last_progress = now
            finite = loss if -math.inf < loss < math.inf else None  # JSON has no NaN or inf
            self._send_json(PROGRESS, {"step": step, "total": total, "loss": finite})

    def fail(self, kind: str, text: str) -> None:
        """Tell the judge why the submission cannot be served; the process should then exit."""
        self._send_json(FAIL, {"kind": kind, "text": text[-MAX_TEXT // 8 :]})

    def serve(
        self,
        predict: Callable[[np.ndarray], np.ndarray | tuple[int, int, int]],
        *,
        claim: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Answer batches until the judge says goodbye; return its BYE message, {"score": …}.

        ``predict`` takes token ids, int32 (rows, length), and returns float32 logits: (rows,
        classes) for a classifier, (rows, positions, classes) for a language model. If it returns
        a shape instead of an array, the logits are in the device buffer that the claim names.
        ``claim`` is what the submission reports about itself.
        """
        self._send_json(READY, claim or {})
        while True:
            kind, sequence, body = self._receive()
            if kind == BYE:
                words: dict[str, Any] = json.loads(body or b"{}")
                return words
            rows, length, _classes = BATCH_HEAD.unpack_from(body)
            tokens = np.frombuffer(body, np.int32, offset=BATCH_HEAD.size).reshape(rows, length)
            answer = predict(tokens.copy())
            shape = answer if isinstance(answer, tuple) else self._write(answer)
            self._send(LOGITS, sequence, struct.pack("<III", *shape))

    def lend(self, data: bytes) -> int:
        """Copy a file into the buffer; return its size in bytes.

        The judge reads it before it sends the first batch. Raises ValueError if it does not fit.
        """
        if len(data) > len(self._buffer):
            raise ValueError(
                f"{len(data):,} bytes are more than the buffer's {len(self._buffer):,}"
            )
        self._buffer[: len(data)] = data
        return len(data)

    def _write(self, answer: np.ndarray) -> tuple[int, int, int]:
        """Put logits into the shared buffer; return their shape, all 0 if neither 2-D nor 3-D."""
        logits = np.asarray(answer, dtype=np.float32)
        if logits.nbytes <= len(self._buffer):
            room = np.frombuffer(self._buffer, np.float32, count=logits.size)
            room.reshape(logits.shape)[...] = logits
        if logits.ndim == 2:
            return logits.shape[0], 1, logits.shape[1]
        return logits.shape if logits.ndim == 3 else (0, 0, 0)

    def _send_json(self, kind: int, value: dict[str, Any]) -> None:
        # The judge accepts only valid Unicode, and a file name in an error may not be.
        text = json.dumps(value, ensure_ascii=False)
        self._send(kind, 0, text.encode(errors="replace"))

    def _send(self, kind: int, sequence: int, body: bytes) -> None:
        # A judge that has hung up has already decided, so a failed send does not matter.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(HEADER.pack(MAGIC, kind, 0, sequence, len(body)) + body)

    def _receive(self) -> tuple[int, int, bytes]:
        head = self._read(HEADER.size)
        magic, kind, _, sequence, size = HEADER.unpack(head)
        if magic != MAGIC:
            raise ConnectionError("the judge's frame has a wrong magic")
        return kind, sequence, self._read(size)

    def _read(self, size: int) -> bytes:
        chunks = bytearray()
        while len(chunks) < size:
            chunk = self._sock.recv(min(1 << 20, size - len(chunks)))
            if not chunk:
                raise ConnectionError("the judge has hung up")
            chunks += chunk
        return bytes(chunks)
