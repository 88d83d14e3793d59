"""The interface of sandboxes: Backend, Sandbox, Process. Only bytes come out of a sandbox.

A time-out, running out of memory and a non-zero exit are results, not errors. So is a missing
program or working folder (exit codes 127 and 126). Only SandboxStartError, SandboxLostError,
TransferError and GpuUnavailableError are raised, and ConfigError for an invalid spec or
command. The backends are in modules of their own; ``registry`` lists them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

Ended = Literal["exited", "timeout", "oom", "lost", "cancelled"]
"""How a process ended. ``exited`` includes death by a signal that the harness did not send."""

StreamName = Literal["stdout", "stderr"]
OnOutput = Callable[[StreamName, bytes], None]
"""Called from a reader thread with each chunk, before any truncation."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path shown inside the sandbox. Read-only unless ``writable``.

    The code in the sandbox may run as another user (``state.USERS``): ``source`` must then be
    accessible to other users. Permissions of the folders above ``source`` do not matter.
    ``target`` may not lie in another mount or in the sandbox's own folders (``/work``, …).
    """

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """The limits and resources of one sandbox. None means no limit.

    Units: bytes, seconds, CPU cores. ``gpus`` are UUIDs from a lease. ``lifetime_s`` limits
    each process, from its start. ``/work`` and ``/tmp`` share ``disk_bytes``.
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
    """The result of a process. ``exit_code``: None if we killed or lost it, negative for a signal.

    ``stdout`` and ``stderr`` are the last bytes of each stream; ``dropped_bytes`` counts the
    bytes cut off before them, in both streams together. ``ended`` is ``oom`` also if the kernel
    killed only a child for lack of memory and the process continued; ``exit_code`` is then the
    process's own.
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
        """Wait for the end. After ``timeout`` seconds kill it; ``ended`` is then ``timeout``."""
        ...

    def kill(self) -> None:
        """Kill it and everything it started; ``ended`` is then ``cancelled``. Idempotent."""
        ...


class Sandbox(Protocol):
    """A place to run programs in, for one evaluation."""

    python: str
    """Path of the Python interpreter, for use in ``argv``."""

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
        """Start a program; return when its isolation is set up and it is about to run.

        Paths in ``argv``, ``cwd`` and ``env`` are as code inside sees them: see ``inside``.
        ``env`` adds to PATH, HOME, TMPDIR, USER and LANG; nothing is inherited. The last
        ``max_output`` bytes of each stream are kept. If ``on_output`` raises, ``wait`` raises
        that exception.
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

        Links and special files are refused: only plain bytes leave a sandbox.
        """
        ...

    def close(self) -> None:
        """End the sandbox; return when its processes and files are gone. Idempotent."""
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
    """False if the code can do whatever its user can: then only for code that we ship."""
    image: str
    """The digest of the image that sandboxes are made from; empty if there is no image."""

    def probe(self) -> Probe: ...

    def unenforced(self, spec: SandboxSpec) -> tuple[str, ...]:
        """Return, sorted, the restrictions that this backend cannot enforce here for ``spec``.

        Empty means that all are enforced. Recorded in every score as ``conditions.unenforced``.
        """
        ...

    def open(self, spec: SandboxSpec) -> Sandbox: ...

    def sweep(self) -> tuple[str, ...]:
        """Remove what dead harness processes left behind; return what was removed."""
        ...
