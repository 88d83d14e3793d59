"""What the backends share: probing, the scratch folder, starts, file transfers and closing.

Each backend decides how a program is isolated and launched; ``running`` watches it.
"""

import itertools
import os
import re
import shlex
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Self

from harness.base.errors import ConfigError, InfrastructureError, SandboxStartError
from sandboxes import transfer
from sandboxes.base import ExecResult, OnOutput, Probe, SandboxSpec
from sandboxes.running import Child, Running
from sandboxes.state import StateDir, chooses_users

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAKEN = (
    *("/work", "/tmp", "/var", "/dev", "/proc", "/sys", "/usr", "/etc", "/venv", "/run"),  # noqa: S108
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/oldroot", "/newroot"),
)


class LocalBackend(ABC):
    """A backend that tries once whether it works on this machine."""

    image = ""
    _remedy: str
    """What to do if the trial's error names no remedy."""

    def __init__(self) -> None:
        self._probing = threading.Lock()
        self._probe: Probe | None = None

    def probe(self) -> Probe:
        """Run one program: an installed tool may be forbidden, or belong to another machine."""
        with self._probing:
            if self._probe is None:
                try:
                    self._probe = self._try()
                except (InfrastructureError, ConfigError) as error:
                    detail = f"{error.message} ({error.cause})" if error.cause else error.message
                    self._probe = Probe(False, detail, error.remedy or self._remedy)
            return self._probe

    @abstractmethod
    def _try(self) -> Probe: ...


def missing_without_root(spec: SandboxSpec) -> set[str]:
    """Return what is not enforced where sandboxes cannot have users and disks of their own."""
    if chooses_users():
        return set()
    return {"separate-user", "user-quotas"} | ({"disk"} if spec.disk_bytes is not None else set())


class LocalSandbox(ABC):
    """A sandbox's starts, transfers and end. A backend adds how one program is launched."""

    def __init__(self, spec: SandboxSpec, state: StateDir, python: str) -> None:
        self.spec = spec
        self.state = state
        self.python = python
        self.work = state.disk / "work"
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._running: list[Running] = []
        self._closing = False
        self._closed = False

    @contextmanager
    def _set_up(self) -> Iterator[None]:
        """Make ``/work`` and ``/tmp`` for its user: two folders on one disk, limited if root.

        The submission does not own the folder above them, so it can never replace one of them
        by a link before a backend mounts it. If this or the block fails, nothing is left behind.
        """
        owner = self.state.user
        try:
            if owner is not None and self.spec.disk_bytes is not None:
                self.state.mount_disk(self.spec.disk_bytes)
            for name in ("work", "tmp"):
                (self.state.disk / name).mkdir(mode=0o755)
                if owner is not None:
                    os.chown(self.state.disk / name, owner, owner)
            yield
        except BaseException:
            self._release()
            self.state.remove()
            raise

    @abstractmethod
    def inside(self, target: str) -> str: ...

    @abstractmethod
    def _launch(
        self, number: int, argv: Sequence[str], cwd: str, env: Mapping[str, str]
    ) -> Child: ...

    @abstractmethod
    def _release(self) -> None:
        """Free what the backend took, except the state folder. No process runs any more."""
        ...

    def start(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        on_output: OnOutput | None = None,
        max_output: int = 1 << 20,
    ) -> Running:
        command = list(argv)
        if not command or "=" in command[0] or any("\0" in word for word in command):
            raise ConfigError(
                f"Not a command: {command!r}",
                cause="it is empty, has a NUL, or a '=' in the program's name",
            )
        full_env = self._environment() | dict(env or {})
        for name, value in full_env.items():
            if not _ENV_NAME.fullmatch(name) or "\0" in value:
                raise ConfigError(f"Not an environment variable: {name!r}")
        where = cwd or self.inside("/work")
        number = next(self._numbers)
        running = Running(
            lambda: self._launch(number, command, where, full_env),
            lifetime_s=self.spec.lifetime_s,
            on_output=on_output,
            max_output=max_output,
            name=f"{self.state.name}-{number}",
        )
        with self._lock:
            if self._closing:
                raise SandboxStartError("The sandbox is closed", remedy="open a new one")
            # Listed before it starts, so that close() ends what an interrupt left half-started.
            self._running = [r for r in self._running if not r.poll()]
            self._running.append(running)
            running.begin()
        running.await_start()
        return running

    def exec(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        on_output: OnOutput | None = None,
        max_output: int = 1 << 20,
    ) -> ExecResult:
        process = self.start(argv, cwd=cwd, env=env, on_output=on_output, max_output=max_output)
        try:
            return process.wait(timeout)
        except BaseException:
            process.end()  # Ctrl-C while waiting: nobody else knows of this process
            raise

    def put(self, src: Path, dst: str) -> None:
        transfer.put(self.work, src, dst, self.state.user)

    def get(self, src: str, dst: Path, *, max_bytes: int) -> None:
        transfer.get(self.work, src, dst, max_bytes)

    def close(self) -> None:
        with self._lock:
            self._closing = True
            running, self._running = self._running, []
        try:
            for process in running:
                process.kill()
            for process in running:
                process.end()
        except BaseException:
            with self._lock:
                self._running += running  # so that a second close() tries again
            raise
        with self._lock:
            if self._closed:
                return
            self._release()
            self.state.remove()
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _environment(self) -> dict[str, str]:
        """Return every process's variables. Never the harness's own: those include API keys."""
        return {
            "PATH": f"{PurePosixPath(self.python).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": self.inside("/work"),
            "TMPDIR": self.inside("/tmp"),  # noqa: S108
            "USER": "candidate",
            "LANG": "C.UTF-8",
        }


def shell(
    argv: Sequence[str],
    cwd: str,
    env: Mapping[str, str],
    *,
    handshake: str = "",
    file_bytes: int | None = None,
    processes: int | None = None,
) -> list[str]:
    """Return a shell command that prepares the process and then becomes ``argv``.

    The shell does what must happen without privileges, because the submission's side chooses
    it: enter the folder, set the environment (an ``LD_PRELOAD`` must not reach setpriv).
    A missing folder or program is then exit code 126 or 127, not a failure of the harness.
    One shell does all of it: on a busy machine each program in the chain costs 4 ms.
    """
    lines = [handshake, "ulimit -c 0"]
    if file_bytes is not None:
        lines.append(f"ulimit -f {-(-file_bytes // 512)}")  # POSIX: blocks of 512
    if processes is not None:
        lines.append(f"ulimit -u {processes} 2>/dev/null || ulimit -p {processes}")  # bash, dash
    lines.append(f"cd -- {shlex.quote(cwd)} || exit 126")
    lines.append("unset OLDPWD")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    lines.append('exec "$@" </dev/null')
    return ["/bin/sh", "-c", "\n".join(lines), "sh", *argv]


def check_spec(spec: SandboxSpec) -> None:
    """Refuse invalid limits and mounts. Raises ConfigError.

    A mount below a folder that the submission can write is refused, because a privileged
    program makes the mount point and follows links: if ``/work/a`` were replaced by a link,
    mounting on ``/work/a/b`` would make folders wherever the link leads.
    """
    for name in ("memory_bytes", "cpus", "pids", "disk_bytes", "shm_bytes", "lifetime_s"):
        value = getattr(spec, name)
        if value is not None and value <= 0:
            raise ConfigError(f"{name} must be positive, not {value}")
    targets: list[PurePosixPath] = []
    for mount in sorted(spec.mounts, key=lambda m: m.target):
        target = PurePosixPath(mount.target)
        plain = target.is_absolute() and str(target) == mount.target and target != target.parent
        if not plain or ".." in target.parts or "\0" in mount.target:
            raise ConfigError(f"Mount target {mount.target!r} is not a plain absolute path")
        if any(target.is_relative_to(taken) for taken in _TAKEN):
            raise ConfigError(
                f"Mount target {mount.target!r} is taken by the sandbox itself",
                remedy="choose a folder of its own, such as /submission",
            )
        if any(target.is_relative_to(other) for other in targets):
            raise ConfigError(f"Mount target {mount.target!r} lies in another mount")
        if not mount.source.exists():
            raise ConfigError(f"Nothing to mount at {mount.target}: {mount.source} is absent")
        targets.append(target)
