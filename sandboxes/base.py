"""The sandbox contract: few verbs, and everything that comes out is bytes.

Time-outs, out-of-memory and non-zero exits are results; so is a program or a working
folder that does not exist (exit codes 127 and 126). Only SandboxStartError,
SandboxLostError, TransferError and GpuUnavailableError are raised, and ConfigError for a
spec or a command that makes no sense.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

Ended = Literal["exited", "timeout", "oom", "lost", "cancelled"]
"""How a process ended. ``exited`` covers signals the process died of by itself."""

Stream = Literal["stdout", "stderr"]
OnOutput = Callable[[Stream, bytes], None]
"""Called from a reader thread with each chunk, before any truncation."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path shown inside the sandbox. Read-only unless ``writable``.

    The code in the sandbox may be another user (``state.USERS``): it needs the
    permissions of others on ``source``; folders above ``source`` do not matter.
    ``target`` may not lie under ``/work``, ``/tmp`` or in another mount.
    """

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What a sandbox is given. A limit of None is not set.

    Units: bytes, seconds, CPU cores. ``gpus`` are UUIDs from a lease. ``lifetime_s`` is
    that of each process, from its start. ``/work`` and ``/tmp`` share ``disk_bytes``.
    """

    memory_bytes: int | None = 4 << 30
    cpus: float | None = None
    pids: int | None = 256
    disk_bytes: int | None = 1 << 30
    shm_bytes: int | None = 64 << 20
    lifetime_s: float | None = None
    network: bool = False
    gpus: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a process did. ``exit_code`` is None when it was killed by us, negative for a signal.

    ``stdout`` and ``stderr`` are the last bytes of each stream; ``dropped_bytes`` counts
    what was cut before them, both streams together. ``ended`` is ``oom`` also when only a
    child was shot and the process went on: ``exit_code`` then says how it ended.
    """

    exit_code: int | None
    ended: Ended
    stdout: bytes
    stderr: bytes
    dropped_bytes: int
    seconds: float
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a backend can be used on this machine; if not, what to do about it."""

    available: bool
    detail: str
    remedy: str = ""


class Process(Protocol):
    """A running process inside a sandbox."""

    def poll(self) -> bool:
        """Return True once the process has ended."""
        ...

    def wait(self, timeout: float | None = None) -> ExecResult:
        """Wait for the end; after ``timeout`` seconds kill it and say ``timeout``."""
        ...

    def kill(self) -> None:
        """Kill it and everything it started; ``wait`` then says ``cancelled``. Idempotent."""
        ...


class Sandbox(Protocol):
    """One isolated place for one evaluation."""

    python: str
    """The interpreter to name in ``argv``."""

    def inside(self, target: str) -> str:
        """Return the path under which code in the sandbox sees ``target`` (``/submission``, …)."""
        ...

    def start(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        on_output: OnOutput | None = None,
        max_output: int = 1 << 20,
    ) -> Process:
        """Start a program; return when all walls stand and it is about to run.

        Paths in ``argv``, ``cwd`` and ``env`` are as code inside sees them: see ``inside``.
        ``env`` adds to PATH, HOME, TMPDIR, USER and LANG; nothing is inherited. The last
        ``max_output`` bytes of each stream are kept. What ``on_output`` raises is raised by
        ``wait``.
        """
        ...

    def exec(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        on_output: OnOutput | None = None,
        max_output: int = 1 << 20,
    ) -> ExecResult: ...

    def put(self, src: Path, dst: str) -> None:
        """Copy a host file or folder to ``dst`` under ``/work``. Raises TransferError."""
        ...

    def get(self, src: str, dst: Path, *, max_bytes: int) -> None:
        """Copy a file or folder from under ``/work`` to the host. Raises TransferError.

        Links and special files are refused: what leaves a sandbox is bytes.
        """
        ...

    def close(self) -> None:
        """End it. Idempotent; returns when nothing of it is alive or on disk."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...


class Backend(Protocol):
    """A way to make sandboxes on this machine."""

    name: str
    isolates: bool
    """False where the code can do whatever its user can: only for code we ship."""
    image: str
    """The digest of the image that sandboxes are made of; empty where there is none."""

    def probe(self) -> Probe: ...

    def unenforced(self, spec: SandboxSpec) -> tuple[str, ...]:
        """Name the walls of ``spec`` that this backend cannot hold on this machine, sorted.

        Empty means that all hold. Recorded in every score as ``conditions.isolation``.
        """
        ...

    def open(self, spec: SandboxSpec) -> Sandbox: ...

    def sweep(self) -> tuple[str, ...]:
        """Remove what dead harness processes left behind; return what was removed."""
        ...
