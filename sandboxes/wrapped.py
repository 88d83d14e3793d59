"""One ``bwrap``: its start, the handshake that proves it is set up, its end, its exit code.

bwrap's exit code does not distinguish its own failures from the command's: both may be 1. So
the last step before the command is a shell inside the finished sandbox, which reports over its
stdin and waits for an answer. Without that report, the sandbox could not be set up.
"""

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from harness.base.errors import SandboxStartError
from sandboxes import seccomp
from sandboxes.base import StreamName
from sandboxes.cgroup import Leaf
from sandboxes.running import End, close_pipes, exit_code, pipes

_START_S = 30.0
# Only what bwrap and its shell need, no API key: code of our uid can read /proc/1/environ.
_BARE_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
# The answer is needed so that hostile code never runs unwatched: if the harness dies before
# --die-with-parent takes effect, the read fails and the shell exits.
HANDSHAKE = "printf . >&0 && read -r answer <&0 || exit 125"
"""What the shell inside does first. The command given to BwrapProcess must begin with it."""


class BwrapProcess:
    """A program in bubblewrap: a ``running.Child``, set up when the constructor returns.

    ``user``: the uid and gid of the command; None means the harness's own. Raises
    SandboxStartError, and then leaves nothing behind but ``leaf``.
    """

    def __init__(
        self,
        tree: Sequence[str],
        command: Sequence[str],
        *,
        leaf: Leaf | None,
        user: int | None,
        watched_bytes: int | None,
    ) -> None:
        self._leaf = leaf
        self._lock = threading.Lock()
        self._init: int | None = None
        self._status = b""
        self._status_fd, status_w = os.pipe()
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as given:  # closed here as soon as the child has them
            given.callback(theirs.close)
            given.callback(os.close, status_w)
            fds = [status_w, _memfd(b"".join(os.fsencode(word) + b"\0" for word in tree))]
            given.callback(os.close, fds[1])
            # The tree goes by descriptor: /proc/1/cmdline would show the host's paths inside.
            argv = ["bwrap", "--args", str(fds[1]), "--json-status-fd", str(status_w)]
            if seccomp.supported():
                fds.append(_memfd(seccomp.program()))
                given.callback(os.close, fds[2])
                argv += ["--seccomp", str(fds[2])]
            argv += ["--", *_become(user), *command]
            joins = leaf.joins if leaf is not None else []
            enter = "".join(f"echo 0 >{shlex.quote(path)} && " for path in joins)
            try:
                self.popen = subprocess.Popen(
                    ["/bin/sh", "-c", enter + 'exec "$@"', "sh", *argv],
                    stdin=theirs.fileno(),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=_BARE_ENV,
                    cwd="/",
                    pass_fds=fds,
                    # A session of its own: only the harness handles Ctrl-C in the terminal.
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                os.close(self._status_fd)
                raise SandboxStartError(
                    "bubblewrap could not be started", cause=str(error)
                ) from error
        with ours:
            try:
                self._shake_hands(ours)
            except BaseException as error:
                self._abandon(error)
                raise
        self.outputs: Mapping[int, StreamName] = pipes(self.popen)
        self.watched = None if watched_bytes is None else (self.popen.pid, watched_bytes)

    def pidfd(self) -> int:
        return os.pidfd_open(self.popen.pid)

    def kill(self) -> None:
        with self._lock:
            if self._init is not None:
                # The kernel ends every process of a pid namespace with its init, also
                # daemons. bwrap then sees its child dead and ends by itself.
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._init, signal.SIGKILL)

    def finish(self) -> End:
        self.popen.wait()
        while self._read_status():
            pass
        self._close()
        oom_killed, peak = False, None
        if self._leaf is not None:
            if (memory := self._leaf.memory) is not None:
                oom_killed, peak = memory.oom_kills() > 0, memory.peak_bytes()
            self._leaf.remove()
        close_pipes(self.popen)
        status = self._reported("exit-code")
        return End(None if status is None else exit_code(status), oom_killed, peak)

    def _shake_hands(self, ours: socket.socket) -> None:
        deadline = time.monotonic() + _START_S
        ours.settimeout(_START_S)
        try:
            if ours.recv(1) != b".":
                raise SandboxStartError("The sandbox could not be set up")
        except TimeoutError as error:
            raise SandboxStartError(f"The sandbox did not stand after {_START_S:.0f} s") from error
        except OSError as error:
            raise SandboxStartError("The sandbox could not be set up") from error
        # bwrap wrote this before it let its child continue.
        while (pid := self._reported("child-pid")) is None:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._status_fd], [], [], left)[0] or not self._read_status():
                raise SandboxStartError("bubblewrap did not name its child")
        # The shell inside still waits for us, so its init lives: the pid is still its own.
        self._init = os.pidfd_open(pid)
        try:
            ours.sendall(b"go\n")
        except OSError as error:
            raise SandboxStartError("The sandbox died while it was set up") from error

    def _abandon(self, error: BaseException) -> None:
        """Clean up after a failed start, and add bwrap's own message to the error."""
        try:
            self.popen.wait(1.0)  # it says why, then ends
        except subprocess.TimeoutExpired:
            self.kill()
            self.popen.kill()  # --die-with-parent then kills all below it
            self.popen.wait()
        said = b""
        for pipe in (self.popen.stdout, self.popen.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                with contextlib.suppress(OSError):
                    said = os.read(pipe.fileno(), 4096)
                pipe.close()
        self._close()
        if isinstance(error, SandboxStartError):
            memory = None if self._leaf is None else self._leaf.memory
            if memory is not None and memory.oom_kills():
                error.cause = "its memory limit is too small even for bubblewrap"
            else:
                error.cause = said.decode(errors="replace").strip() or (
                    f"bwrap ended with {self.popen.returncode} and no message"
                )
            error.remedy = error.remedy or "`bwrap --ro-bind / / true` shows if it may be used"

    def _close(self) -> None:
        with self._lock:
            if self._init is not None:
                os.close(self._init)
                self._init = None
        os.close(self._status_fd)

    def _read_status(self) -> bool:
        """Read what bwrap reported so far. False at the end."""
        chunk = os.read(self._status_fd, 65536)
        self._status += chunk
        return bool(chunk)

    def _reported(self, key: str) -> int | None:
        for line in self._status.splitlines(keepends=True):
            if line.endswith(b"\n"):
                value = json.loads(line).get(key)
                if isinstance(value, int):
                    return value
        return None


def _become(user: int | None) -> list[str]:
    if user is None:
        return []
    words = ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return [*words, "--inh-caps=-all", "--bounding-set=-all", "--"]


def _memfd(data: bytes) -> int:
    fd = os.memfd_create("harness")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd
