"""No isolation: a plain child process, for code that ships with the harness.

It provides a session of its own, a clean environment, a lifetime, a watchdog on resident
memory, and the interface of a real sandbox. It enforces nothing else; ``unenforced`` lists the
rest. A daemon that leaves the session can outlive the program that started it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from harness.base.errors import SandboxStartError
from sandboxes import state, watchdog
from sandboxes.base import Probe, SandboxSpec
from sandboxes.local import LocalSandbox, check_spec, shell
from sandboxes.running import End, close_pipes, pipes

_KIND = "process"


class ProcessBackend:
    """The backend that runs plain processes."""

    name = "process"
    isolates = False
    image = ""

    def probe(self) -> Probe:
        if not hasattr(os, "pidfd_open"):
            return Probe(False, "needs Linux 5.3", "use a newer kernel")
        return Probe(True, "plain processes, no isolation")

    def unenforced(self, spec: SandboxSpec) -> tuple[str, ...]:
        walls = {"filesystem", "privileges", "processes", "seccomp", "separate-user"}
        walls.add("user-quotas")
        limits = {
            "cpus": spec.cpus,
            "disk": spec.disk_bytes,
            "memory:watchdog": spec.memory_bytes,
            "pids": spec.pids,
            "shm": spec.shm_bytes,
        }
        walls |= {name for name, limit in limits.items() if limit is not None}
        if not spec.network:
            walls.add("network")
        if any(not mount.writable for mount in spec.mounts):
            walls.add("read-only")
        if spec.gpus:
            walls.add("gpus")
        return tuple(sorted(walls))

    def open(self, spec: SandboxSpec) -> "ProcessSandbox":
        check_spec(spec)
        return ProcessSandbox(spec)

    def sweep(self) -> tuple[str, ...]:
        return state.sweep(_KIND)


class ProcessSandbox(LocalSandbox):
    """A folder that stands for a sandbox's root; ``inside`` returns the paths in it."""

    def __init__(self, spec: SandboxSpec) -> None:
        super().__init__(spec, state.StateDir(_KIND), sys.executable)
        with self._set_up():
            for mount in spec.mounts:
                link = Path(self.inside(mount.target))
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(mount.source.absolute())

    def inside(self, target: str) -> str:
        return str(self.state.disk / PurePosixPath(target).relative_to("/"))

    def _environment(self) -> dict[str, str]:
        # A request, not a restriction (``unenforced`` says so): the code can use other GPUs.
        # Empty if no GPU was leased, which hides them all.
        return {**super()._environment(), "CUDA_VISIBLE_DEVICES": ",".join(self.spec.gpus)}

    def _release(self) -> None:
        pass

    def _launch(
        self, number: int, argv: Sequence[str], cwd: str, env: Mapping[str, str]
    ) -> "_Plain":
        return _Plain(self.spec, shell(argv, cwd, env, file_bytes=self.spec.disk_bytes))


class _Plain:
    """A plain process: a ``running.Child``."""

    def __init__(self, spec: SandboxSpec, command: list[str]) -> None:
        self._lock = threading.Lock()
        tie = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        try:
            self.popen = subprocess.Popen(
                [*tie, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": os.defpath},
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxStartError("A process could not be started", cause=str(error)) from error
        self.outputs = pipes(self.popen)
        limit = spec.memory_bytes
        self.watched = None if limit is None else (self.popen.pid, limit)

    def pidfd(self) -> int:
        return os.pidfd_open(self.popen.pid)

    def kill(self) -> None:
        with self._lock:
            if self.popen.returncode is not None:
                return  # reaped: its pid may already belong to another process
            dead = os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            # Listed before the kill: after it, orphans belong to init and cannot be found.
            family = [] if dead else watchdog.family(self.popen.pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            for pid in family:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def finish(self) -> End:
        with self._lock:
            code = self.popen.wait()
        close_pipes(self.popen)
        return End(code)
