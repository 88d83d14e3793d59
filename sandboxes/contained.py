"""One container: its start, the handshake that proves it is set up, its end, its exit code.

Each started program has a container of its own. So everything that it leaves running ends with
the container, it has its own memory counters, and this needs no special rights on the host.
The container's restrictions are chosen in ``docker_engine``.

PID 1 is the engine's init. Its one child is a shell under a third uid, which the code cannot
signal. The shell reads from a FIFO that only the harness holds open for writing. When the
harness closes the FIFO, or dies for any reason, the shell reads the end of the file and exits;
then init exits, and the kernel ends every process of the pid namespace. This works even if the
engine is dead.

Output comes through two more FIFOs, directly from the code to us. The engine's own stream
would use the engine's memory and ours without a limit.
"""

import contextlib
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import SandboxLostError, SandboxStartError
from sandboxes import cgroup
from sandboxes.base import StreamName
from sandboxes.engine import Engine, bind
from sandboxes.running import DEATH_S, End, exit_code, undying

INIT_UID = 10003
"""The uid and gid of PID 1 in the container: not the code's, and of no user outside."""

PIPES = "/run/harness"
"""Where the FIFOs appear inside, on a read-only mount."""

# If memory runs out, the kernel should kill the code, not the processes that watch it. If a later
# step fails, the shell exits with 125, and the host reads no dot.
HANDSHAKE = (
    "echo 500 2>/dev/null >/proc/self/oom_score_adj\n"
    f"exec <{PIPES}/go >{PIPES}/out 2>{PIPES}/err && printf . && read -r answer || exit 125"
)
"""What the shell inside does first. The command given to ContainerProcess must begin with it."""

_ENDED_BY_US = 3
_WAIT = f"exec <{PIPES}/life && printf . >{PIPES}/up && read -r line; exit {_ENDED_BY_US}"
_START_S = 60.0
_PATIENCE_S = 2.0
_OURS = {"life": os.O_RDWR, "go": os.O_RDWR, **dict.fromkeys(("up", "out", "err"), os.O_RDONLY)}
"""FIFO -> how the host opens it. O_RDWR, because the first two have no reader yet."""


class ContainerProcess:
    """A program in a container: a ``running.Child``, set up when the constructor returns.

    ``folder`` is made for the FIFOs and removed at the end. ``uid`` is the code's. ``later`` runs
    the cleanup after all processes are dead: removing the container from the engine takes 50 ms.
    Raises SandboxStartError or SandboxLostError, and then leaves nothing behind.
    """

    watched: tuple[int, int] | None = None  # the engine limits its memory

    def __init__(
        self,
        engine: Engine,
        options: dict[str, Any],
        host: dict[str, Any],
        command: Sequence[str],
        *,
        folder: Path,
        uid: int,
        later: Callable[[Callable[[], None]], object],
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._later = later
        self._lock = threading.Lock()
        self._code: int | None = None
        self._killed = False
        self._failure: SandboxLostError | None = None
        self._oom_kills = 0
        self._peak: int | None = None
        self._container = ""
        self._handle = ""
        self._fds = contextlib.ExitStack()
        self._life: int | None = None
        try:
            ends = _fifos(folder, uid)
            self._life = ends.pop("life")
            for fd in ends.values():
                self._fds.callback(os.close, fd)
            self.outputs: dict[int, StreamName] = {ends["out"]: "stdout", ends["err"]: "stderr"}
            mounts = [*host.pop("mounts"), bind(str(folder), PIPES, writable=False)]
            self._container = engine.create(
                command=["/bin/sh", "-c", _WAIT],
                user=f"{INIT_UID}:{INIT_UID}",
                host_config=engine.host_config(mounts=mounts, **host),
                **options,
            )
            self._init = self._pidfd(engine.start(self._container))
            self._await_word(ends["up"])
            self._handle = engine.run_inside(self._container, list(command), f"{uid}:{uid}")
            self._await_word(ends["out"])
            pid, _ = engine.inspect_program(self._handle)
            # The shell inside still waits for us, so its pid cannot have been reused.
            self._main = self._pidfd(pid)
            self._memory = cgroup.memory_of(pid)
            os.write(ends["go"], b"go\n")
            for name in _OURS:  # so that nobody else opens them
                (folder / name).unlink()
        except BaseException:
            self._clear()
            raise

    def pidfd(self) -> int:
        return os.dup(self._main)

    def kill(self) -> None:
        with self._lock:
            if self._life is None:
                return
            if _readable(self._main, 0):
                # Ask before the container ends: the engine then forgets its programs.
                self._read_code()
            else:
                self._killed = True
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(self._main, signal.SIGKILL)
            if self._memory is not None:  # the group ends with the container
                self._oom_kills = self._memory.oom_kills()
                self._peak = self._memory.peak_bytes()
            os.close(self._life)
            self._life = None

    def finish(self) -> End:
        self.kill()
        try:
            self._await_death()
            if self._failure is not None:
                raise self._failure
            lost = self._code is None and not self._killed
            if self._code == -signal.SIGKILL and not self._killed and not self._oom_kills:
                # The program killed itself, or somebody outside killed the whole container.
                lost = self._engine.exit_code(self._container) != _ENDED_BY_US
        finally:
            self._later(self._clear)
        return End(None if lost else self._code, self._oom_kills > 0, self._peak)

    def _pidfd(self, pid: int) -> int:
        """Return a pidfd of ``pid``. Raises SandboxStartError if it is not in our container."""
        try:
            fd = os.pidfd_open(pid)
            groups = Path(f"/proc/{pid}/cgroup").read_text()
        except (OSError, ValueError) as error:
            raise SandboxStartError(
                "The container ended while it was set up, or is not of this machine",
                cause=f"process {pid}: {error}",
                remedy="use an engine on this machine: unset DOCKER_HOST",
            ) from error
        self._fds.callback(os.close, fd)
        if self._container not in groups:
            raise SandboxStartError(
                "The Docker engine runs in another pid namespace than the harness",
                cause=f"process {pid} here is not the container's",
                remedy="run the harness on the engine's own machine, not in a container",
            )
        return fd

    def _await_word(self, fd: int) -> None:
        deadline = time.monotonic() + _START_S
        while not _readable(fd, 0.5):
            self._must_live(deadline)
            ended = self._handle and self._engine.inspect_program(self._handle)[1] is not None
            if ended and not _readable(fd, 0):
                break
        else:
            if os.read(fd, 1) == b".":
                return
        self._must_live(deadline)
        raise SandboxStartError("The sandbox could not be set up", remedy="harness doctor")

    def _must_live(self, deadline: float) -> None:
        if _readable(self._init, 0):
            raise SandboxStartError(
                "The container ended while it was set up",
                cause="its memory limit may be too small even for a shell",
                remedy="docker events, harness doctor",
            )
        if time.monotonic() > deadline:
            raise SandboxStartError(f"The container did not stand after {_START_S:.0f} s")

    def _read_code(self) -> None:
        deadline = time.monotonic() + DEATH_S
        try:
            while time.monotonic() < deadline:
                code = self._engine.inspect_program(self._handle)[1]
                if code is not None:
                    self._code = exit_code(code)
                    return
                time.sleep(0.005)
        except SandboxLostError as error:
            self._failure = error

    def _await_death(self) -> None:
        """Return when all processes of the container are dead; ask the engine only if they stay.

        Raises SandboxLostError.
        """
        if _readable(self._init, _PATIENCE_S):
            return
        # PID 1's shell gets no CPU time, or has no memory left to exit.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._init, signal.SIGKILL)
        if not _readable(self._init, _PATIENCE_S):
            self._engine.remove(self._container)
        if not _readable(self._init, DEATH_S):
            raise undying("A container could not be killed")

    def _clear(self) -> None:
        if self._life is not None:
            os.close(self._life)
            self._life = None
        try:
            if self._container:
                self._engine.remove(self._container)
        except SandboxLostError:
            # Its processes are dead; only the engine's record of it is left, which ``sweep``
            # removes once the engine answers.
            pass
        finally:
            self._fds.close()
            shutil.rmtree(self._folder, ignore_errors=True)


def _fifos(folder: Path, uid: int) -> dict[str, int]:
    """Make the FIFOs, each open only to the user that needs it; return our ends by name.

    Inside they lie on a read-only mount: nobody can change these modes. If we are not root, we
    own them all, and so does the code, which has the same uid. PID 1's FIFOs then give no rights
    to the owner, only to other users, of which PID 1's is one.
    """
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)  # whatever the harness's umask
    ends = {}
    try:
        for name, flags in _OURS.items():
            path = folder / name
            os.mkfifo(path, 0o600)
            ends[name] = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
            init = name in ("life", "up")
            if os.geteuid() == 0:
                owner = INIT_UID if init else uid
                os.chown(path, owner, owner)
            elif init:
                path.chmod(0o004 if name == "life" else 0o002)
    except BaseException:
        for fd in ends.values():
            os.close(fd)
        raise
    return ends


def _readable(fd: int, timeout_s: float) -> bool:
    poll = select.poll()  # select() cannot take descriptors above 1023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(1000 * timeout_s))
