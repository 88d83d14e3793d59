"""The judge's end of the link to a candidate.

One unix stream socket and one buffer. The judge listens, accepts exactly one connection,
and stops listening. It then sends a header with the buffer's descriptor attached. Frames:

    header   <4s H H I I>   magic "AIRA", kind, 0, sequence number, bytes that follow
    HELLO    judge → candidate   carries the buffer (SCM_RIGHTS), whose size is the file size
    PROGRESS candidate → judge   JSON {step, total, loss or null}: a claim, shown to the user
    READY    candidate → judge   JSON: what the submission reports about itself, its claim
    BATCH    judge → candidate   <III> rows, length, classes; int32 token ids
    LOGITS   candidate → judge   <III> rows, positions, classes: the logits are in the buffer
    FAIL     candidate → judge   JSON {kind, text}: why it cannot be served
    BYE      judge → candidate   JSON {score}: null if the candidate must not know it

A classifier answers with one position per row. Logits are float32; a candidate that computes on a
GPU may name a device buffer of its own in READY instead (see ``gpu_reader``).

The buffer is a memfd that the judge creates and seals: a candidate that could shrink it
would kill the judge with SIGBUS. Everything received is bounded in size and in time, and
nothing is unpickled. Numbers in JSON must be finite, whole numbers at most LARGEST in size, and
texts valid Unicode. A violation of the protocol raises ProtocolError: the submission is at fault.
"""

import json
import mmap
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fcntl
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from harness.base.errors import Cancelled
from scorers.candidate.candidate import HEADER, HELLO, LOGITS, MAGIC, MAX_TEXT

TICK_S = 0.05
"""How often a wait checks whether the candidate has died or the evaluation was cancelled."""

MAX_BODY = MAX_TEXT + 4096
LARGEST = 2**53
"""Largest whole number in JSON: up to it, every program that reads a score keeps it exactly."""
DEEPEST = 8
"""How deep lists and objects in JSON may be nested."""
LOGITS_BODY = struct.Struct("<III")


class ProtocolError(Exception):
    """The candidate sent something that the protocol does not allow."""


class Gone(Exception):
    """The candidate hung up or died."""


class Late(Exception):
    """The candidate did not answer before the deadline."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message from the candidate."""

    kind: int
    sequence: int
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object whose values are safe to store. Raises ProtocolError."""
        try:
            value = json.loads(self.body.decode())
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"a frame of kind {self.kind} is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise ProtocolError(f"a frame of kind {self.kind} holds no JSON object")
        try:
            _check(value, DEEPEST)
        except ValueError as error:
            raise ProtocolError(f"a frame of kind {self.kind} holds {error}") from None
        return value

    def progress(self) -> dict[str, Any]:
        """Return step, total and loss of a PROGRESS frame. Raises ProtocolError."""
        message = self.json()
        step, total, loss = message.get("step"), message.get("total"), message.get("loss")
        # Not isinstance: a bool is an int in Python, but not a valid step.
        if type(step) is not int or type(total) is not int or not 0 <= step <= total:
            raise ProtocolError(f"progress by step {step!r} of {total!r}")
        if loss is not None and type(loss) not in (int, float):
            raise ProtocolError(f"progress with a loss of {loss!r}")
        return {"step": step, "total": total, "loss": None if loss is None else float(loss)}

    def shape(self) -> tuple[int, int, int]:
        """Return rows, positions and classes of a LOGITS frame. Raises ProtocolError."""
        if self.kind != LOGITS or len(self.body) != LOGITS_BODY.size:
            raise ProtocolError(f"expected logits, got kind {self.kind}, {len(self.body)} bytes")
        rows, positions, classes = LOGITS_BODY.unpack(self.body)
        return rows, positions, classes


def _check(value: object, deepest: int) -> None:
    """Raise ValueError if something in a JSON value cannot be stored or displayed."""
    match value:
        case dict():
            inner = [*value, *value.values()]
        case list():
            inner = value
        case int() if abs(value) > LARGEST:
            raise ValueError("a whole number that is too large")
        case float() if not isfinite(value):
            raise ValueError("a number that is not finite")
        case str() if any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError("text that is not Unicode")
        case _:
            return
    if not deepest:
        raise ValueError("values that are nested too deeply")
    for part in inner:
        _check(part, deepest - 1)


class LogitsBuffer:
    """Shared memory that the candidate writes logits to; its size is sealed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._fd = os.memfd_create("logits", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._fd, size)
        fcntl(self._fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
        self._map = mmap.mmap(self._fd, size)

    def fileno(self) -> int:
        """Return the descriptor to hand to the candidate."""
        return self._fd

    def take(self, size: int) -> bytes:
        """Return a copy of the first ``size`` bytes, and zero them in the buffer."""
        copy = self._map[:size]
        self._map[:size] = bytes(size)
        return copy

    def save(self, size: int, path: Path) -> None:
        """Write the first ``size`` bytes to a file."""
        with memoryview(self._map) as view, path.open("wb") as file:
            file.write(view[:size])

    def close(self) -> None:
        """Unmap and close."""
        self._map.close()
        os.close(self._fd)


class Listener:
    """The judge's listening socket, which accepts one candidate only."""

    def __init__(self, path: Path) -> None:
        # A socket's path may have at most 108 bytes, and a cluster's TMPDIR alone can be longer.
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(f"/proc/self/fd/{folder}/{path.name}")
            path.chmod(0o666)  # the candidate is another user; the folder controls access
            self._socket.listen(1)
        except OSError:
            self._socket.close()
            raise
        finally:
            os.close(folder)

    def accept(self, alive: Callable[[], bool], cancel: threading.Event, deadline: float) -> "Wire":
        """Wait for the candidate, then stop listening. Raises Gone, Late, Cancelled."""
        _wait(self._socket, "read", alive, cancel, deadline)
        connection, _ = self._socket.accept()
        self.close()
        return Wire(connection, alive, cancel)

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._socket.close()


class Wire:
    """The connection to the candidate. Waits end at a deadline, its death, or a cancellation."""

    def __init__(
        self, connection: socket.socket, alive: Callable[[], bool], cancel: threading.Event
    ) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._alive = alive
        self._cancel = cancel
        self._received = bytearray()
        _, self.peer_uid, _ = struct.unpack(
            "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )

    def greet(self, buffer: LogitsBuffer) -> None:
        """Send HELLO with the buffer's descriptor. Raises Gone."""
        header = HEADER.pack(MAGIC, HELLO, 0, 0, 0)
        try:
            socket.send_fds(self._socket, [header], [buffer.fileno()])
        except OSError:
            raise Gone from None

    def send(self, kind: int, sequence: int, body: bytes, deadline: float) -> None:
        """Send one frame. Raises Gone, Late, Cancelled."""
        left = memoryview(HEADER.pack(MAGIC, kind, 0, sequence, len(body)) + body)
        while left:
            _wait(self._socket, "write", self._alive, self._cancel, deadline)
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                continue
            except OSError:
                raise Gone from None

    def receive(self, deadline: float) -> Frame:
        """Return the next frame. Raises Gone, Late, Cancelled, ProtocolError."""
        magic, kind, reserved, sequence, size = HEADER.unpack(self._read(HEADER.size, deadline))
        if magic != MAGIC or reserved:
            raise ProtocolError(f"a frame starts with {magic!r} instead of {MAGIC!r}")
        if size > MAX_BODY:
            raise ProtocolError(f"a frame announces {size} bytes, the limit is {MAX_BODY}")
        return Frame(kind, sequence, self._read(size, deadline))

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._socket.close()

    def _read(self, size: int, deadline: float) -> bytes:
        while len(self._received) < size:
            _wait(self._socket, "read", self._alive, self._cancel, deadline)
            try:
                chunk = self._socket.recv(1 << 16)
            except BlockingIOError:
                continue
            except OSError:
                raise Gone from None
            if not chunk:
                raise Gone
            self._received += chunk
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken


def _wait(
    sock: socket.socket,
    what: Literal["read", "write"],
    alive: Callable[[], bool],
    cancel: threading.Event,
    deadline: float,
) -> None:
    """Return when ``sock`` is ready. Raises Cancelled, Gone, Late."""
    sockets = ([sock], []) if what == "read" else ([], [sock])
    while True:
        # Checked before the socket, so that data sent before the candidate's death is still read.
        living = alive()
        ready = any(select.select(*sockets, [], TICK_S if living else 0))
        if cancel.is_set():
            raise Cancelled("The evaluation was cancelled.")
        if time.monotonic() > deadline:  # even if ready: slow sending must not gain time
            raise Late
        if ready:
            return
        if not living:
            raise Gone
