"""One started process, watched by one thread: its output, its lifetime, its end.

The thread also *starts* the process, and lives until after its end. The reason: the
kernel's "kill me when my parent dies" (PDEATHSIG, used by bubblewrap's --die-with-parent)
means the parent *thread*. If a pool's worker thread started a sandbox and the pool then ended
the idle thread, the sandbox would be killed for no visible reason.

Output is read until it ends, even if ``on_output`` fails: a full pipe would stop the
submission, which would then seem slow. Only the last bytes are kept.
"""

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from harness.base.errors import SandboxLostError
from sandboxes import watchdog
from sandboxes.base import Ended, ExecResult, OnOutput, StreamName

_CHUNK = 1 << 20
_F_SETPIPE_SZ = 1031
_GRACE_S = 1.0
"""How long to read the output of descendants that outlive the process (no isolation)."""
DEATH_S = 30.0
"""How long a killed process may take to die: a stuck GPU driver holds it in the kernel."""
_WATCH_S = 0.1

_Reason = Literal["timeout", "cancelled", "oom"]


@dataclass(frozen=True, slots=True)
class End:
    """What the backend knows of an ended process. ``exit_code``: None if nobody saw it."""

    exit_code: int | None
    oom_killed: bool = False
    peak_memory_bytes: int | None = None


class Child(Protocol):
    """A process as a backend started it, for ``Running`` to watch."""

    watched: tuple[int, int] | None
    """A pid, and the resident bytes that it and its descendants may have; None: not watched."""

    @property
    def outputs(self) -> Mapping[int, StreamName]:
        """Descriptors to read its output from. ``finish`` closes them."""
        ...

    def pidfd(self) -> int:
        """Return a new descriptor that becomes readable when the process has ended."""
        ...

    def kill(self) -> None:
        """Kill it and all it started. Callable from any thread, at any time, more than once."""
        ...

    def finish(self) -> End:
        """Wait for the process, which is dead or dying, and clean up. Called once."""
        ...


def pipes(popen: subprocess.Popen[bytes]) -> dict[int, StreamName]:
    """Return the ``outputs`` of a child process that was started with two pipes."""
    if popen.stdout is None or popen.stderr is None:
        raise AssertionError("started without pipes")
    return {popen.stdout.fileno(): "stdout", popen.stderr.fileno(): "stderr"}


def close_pipes(popen: subprocess.Popen[bytes]) -> None:
    """Close what ``pipes`` returned."""
    for pipe in (popen.stdout, popen.stderr):
        if pipe is not None:
            pipe.close()


class Tail:
    """The last ``limit`` bytes of a stream and a count of all its bytes, in bounded memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._seen = 0

    def add(self, chunk: bytes) -> None:
        self._seen += len(chunk)
        self._kept += chunk
        # Trimmed at twice the limit, so that a byte is moved once on average.
        if len(self._kept) > 2 * self._limit:
            del self._kept[: len(self._kept) - self._limit]

    def kept(self) -> bytes:
        return bytes(self._kept[max(0, len(self._kept) - self._limit) :])

    def dropped(self) -> int:
        return max(0, self._seen - self._limit)


class Running:
    """The ``base.Process`` of all backends. ``launch`` runs in the watching thread."""

    def __init__(
        self,
        launch: Callable[[], Child],
        *,
        lifetime_s: float | None,
        on_output: OnOutput | None,
        max_output: int,
        name: str,
    ) -> None:
        self._launch = launch
        self._lifetime_s = lifetime_s
        self._on_output = on_output
        self._tails: dict[StreamName, Tail] = {
            "stdout": Tail(max_output),
            "stderr": Tail(max_output),
        }
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._reason: _Reason | None = None
        self._started = threading.Event()
        self._done = threading.Event()
        self._failure: BaseException | None = None
        self._callback_failure: Exception | None = None
        self._result: ExecResult | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def begin(self) -> None:
        """Start the watching thread, and with it the process."""
        self._thread.start()

    def await_start(self) -> None:
        """Return when the command is about to run. Raises what ``launch`` raises."""
        self._started.wait()
        if self._child is None and self._failure is not None:
            self._thread.join()
            raise self._failure

    def poll(self) -> bool:
        return self._done.is_set()

    def wait(self, timeout: float | None = None) -> ExecResult:
        if not self._done.wait(timeout):
            self._stop("timeout")
            self._await_death()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        if self._callback_failure is not None:
            raise self._callback_failure
        if self._result is None:
            raise AssertionError("ended without a result")
        return self._result

    def kill(self) -> None:
        self._stop("cancelled")

    def end(self) -> None:
        """Kill it and return when it is dead. Raises SandboxLostError if it will not die."""
        if self._thread.ident is None:
            return
        self._stop("cancelled")
        self._await_death()
        self._thread.join()

    def _await_death(self) -> None:
        if not self._done.wait(DEATH_S):
            raise undying(f"A sandbox's process could not be killed within {DEATH_S:.0f} s")

    def _stop(self, reason: _Reason) -> None:
        with self._lock:
            if self._done.is_set():
                return
            self._reason = self._reason or reason
            child = self._child
        if child is not None:
            child.kill()

    def _main(self) -> None:
        try:
            child = self._launch()
            begun = time.monotonic()  # not before: a container takes a second to start
            with self._lock:
                self._child = child
                stopped = self._reason is not None
            self._started.set()
            if stopped:
                child.kill()
            try:
                self._watch(child, begun)
            finally:
                self._finish(child, begun)
        except BaseException as error:  # noqa: BLE001 - raised by wait() and await_start()
            self._failure = error
        finally:
            with self._lock:
                self._done.set()
            self._started.set()

    def _watch(self, child: Child, begun: float) -> None:
        deadline = None if self._lifetime_s is None else begun + self._lifetime_s
        streams = dict(child.outputs)
        for fd in streams:
            os.set_blocking(fd, False)
            # Larger pipes mean fewer switches. Beyond a user's quota the kernel refuses: no harm.
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, _F_SETPIPE_SZ, _CHUNK)
        dead_at: float | None = None
        look_again = begun
        pidfd = child.pidfd()
        try:
            with selectors.DefaultSelector() as selector:
                for fd in (*streams, pidfd):
                    selector.register(fd, selectors.EVENT_READ)
                while streams or dead_at is None:
                    now = time.monotonic()
                    if dead_at is not None and now > dead_at + _GRACE_S:
                        break
                    if deadline is not None and dead_at is None and now > deadline:
                        deadline = None
                        self._stop("timeout")
                    if child.watched and dead_at is None and now >= look_again:
                        if watchdog.over(*child.watched):
                            self._stop("oom")
                        look_again = time.monotonic() + _WATCH_S
                    pause = [_WATCH_S] if child.watched else []
                    pause += [] if deadline is None else [deadline - now]
                    pause += [] if dead_at is None else [dead_at + _GRACE_S - now]
                    events = selector.select(max(0.0, min(pause)) if pause else None)
                    for key, _ in events:
                        fd = key.fd
                        if fd == pidfd:
                            selector.unregister(pidfd)
                            dead_at = time.monotonic()
                            # Descendants may hold the output open; do not wait for them.
                            child.kill()
                        elif not self._drain(fd, streams[fd]):
                            selector.unregister(fd)
                            del streams[fd]
            # Output that was written before the end, and not yet read, fits in a pipe.
            for fd, stream in streams.items():
                self._drain(fd, stream)
        finally:
            os.close(pidfd)

    def _drain(self, fd: int, stream: StreamName) -> bool:
        """Read one chunk. False at the end of the stream."""
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        if self._on_output is not None and self._callback_failure is None:
            try:
                self._on_output(stream, chunk)
            except Exception as error:  # noqa: BLE001 - raised by wait(); draining must go on
                self._callback_failure = error
        self._tails[stream].add(chunk)
        return True

    def _finish(self, child: Child, begun: float) -> None:
        child.kill()  # in case watching itself failed
        seconds = time.monotonic() - begun
        end = child.finish()
        with self._lock:
            reason = self._reason
        killed = reason is not None and end.exit_code in (None, -signal.SIGKILL)
        out, err = self._tails["stdout"], self._tails["stderr"]
        self._result = ExecResult(
            exit_code=None if killed else end.exit_code,
            ended=_ended(end, reason if killed else None),
            stdout=out.kept(),
            stderr=err.kept(),
            dropped_bytes=out.dropped() + err.dropped(),
            seconds=seconds,
            peak_memory_bytes=end.peak_memory_bytes,
        )


def exit_code(status: int) -> int:
    """Return 128 + n, by which bwrap, Docker and shells report signal n, as -n; others unchanged.

    A real exit code of 129 to 192 is read as a signal too. No exit code decides a score.
    """
    return 128 - status if 128 < status <= 192 else status


def undying(what: str) -> SandboxLostError:
    """Return the error for what was killed and does not die; ``what`` is the whole sentence."""
    return SandboxLostError(
        what,
        cause="it hangs in the kernel, in a device's driver as a rule",
        remedy="look at the machine with `dmesg`; it may need a restart",
    )


def _ended(end: End, reason: _Reason | None) -> Ended:
    """Return how the process ended, by the cause.

    A time-out after the kernel killed one of its processes for memory is an ``oom``: a training
    script whose data loader was killed waits for ever. A cancelled process is only ``cancelled``.
    """
    if reason == "cancelled":
        return "cancelled"
    if end.oom_killed:
        return "oom"
    if reason is not None:
        return reason
    return "lost" if end.exit_code is None else "exited"
