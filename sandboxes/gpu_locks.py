"""One lock file per GPU, in a folder that all users of the host share.

``gpu_pool`` decides which GPUs to lock. A lock is an ``flock`` on an open descriptor: the kernel
frees it when its owner ends for any reason. The file's text (pid, command) is only for people to
read, and may be wrong.

Every user may write in the folder, so nothing in it is trusted. No link is followed, and only a
regular file with one name is locked or written: a second name (a hard link) could be a file that
matters to somebody. A user can still block a GPU, or use it without a lease; leases only work
between processes that cooperate.

Lock files are never removed, not even by ``harness gc``: a process that has opened one and not
yet locked it would then lock a file without a name, and the next process would lock a new file
of the same name. If a cleaner of old files removes one anyway, the next process to lock it
notices, but its holder does not. ``/run/lock`` has no such cleaner, and is preferred for that.
"""

import contextlib
import fcntl
import json
import os
import stat
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import GpuUnavailableError
from harness.base.text import one_line

ENVIRONMENT = "HARNESS_GPU_LOCKS"

_GATE = "gate.lock"
_QUEUE = "queue.lock"
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_STICKY = stat.S_ISVTX | 0o002
_MAX_TEXT = 2048
_FLOCK = "hhqqi4x"
"""``struct flock`` of 64-bit Linux: type, whence, start, length, pid."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lock, as it says itself; ``pid`` is None if nothing is readable."""

    pid: int | None = None
    command: str = ""

    def __str__(self) -> str:
        if self.pid is None:
            return "a process that left no name"
        return f"pid {self.pid} ({self.command or 'unknown command'})"


def folder() -> Path:
    """Return the locks' folder. It must be the same for every user, or locks have no effect."""
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen)
    # Judged by the folder's mode, not by whether *we* may write there: root always may.
    shared = Path("/run/lock")
    with contextlib.suppress(OSError):
        mode = shared.stat().st_mode
        if stat.S_ISDIR(mode) and mode & _STICKY == _STICKY:
            return shared / "harness-gpus"
    return Path("/tmp/harness-gpus")  # noqa: S108


def try_lock(uuid: str) -> int | None:
    """Return a descriptor that holds the GPU's lock, or None if it is held already.

    Raises GpuUnavailableError if the lock file cannot be used.
    """
    with _opened_folder() as place:
        return _try_lock(place, _file_name(uuid))


def unlock(descriptor: int) -> None:
    """Free a lock. To close is not enough: a forked child may hold a copy of the descriptor."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def write_owner(descriptor: int) -> None:
    """Write this process's pid and command into a lock file that it holds."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    text = json.dumps({"pid": os.getpid(), "command": one_line(command, 120)})
    with contextlib.suppress(OSError):  # fails for another user's file, opened only for reading
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def owner(uuid: str) -> Owner | None:
    """Return who holds the GPU's lock, or None if it is free. Takes the lock for an instant."""
    with _opened_folder() as place:
        try:
            descriptor = _open(place, _file_name(uuid), make=False)
        except FileNotFoundError:
            return None
        try:
            with selection_lock(time.monotonic() + 1.0):
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        except BlockingIOError:
            return _read(descriptor)
        finally:
            os.close(descriptor)
    return None


def recorded_owner(uuid: str) -> Owner:
    """Return the owner that the GPU's lock file names, without checking that it is still held."""
    with contextlib.suppress(OSError), _opened_folder() as place:
        descriptor = _open(place, _file_name(uuid), make=False)
        try:
            return _read(descriptor)
        finally:
            os.close(descriptor)
    return Owner()


@contextmanager
def selection_lock(until: float) -> Iterator[bool]:
    """Let one process at a time choose its GPUs; yield False if its turn has not come by ``until``.

    Without it, two processes that want several GPUs could each hold some of them, release them,
    and try again for ever.
    """
    with _opened_folder() as place:
        descriptor = _try_lock(place, _GATE)
        while descriptor is None and time.monotonic() < until:
            time.sleep(0.002)
            descriptor = _try_lock(place, _GATE)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            unlock(descriptor)


class Ticket:
    """A place in the queue of all that wait for GPUs on this host: first come, first served.

    It is a locked byte of one file; the offset is the time of arrival in ns. The kernel frees it
    when the owner ends for any reason. The lock belongs to the open file (OFD), so that two
    threads of one process queue like two processes.
    """

    def __init__(self) -> None:
        self._number = time.monotonic_ns()
        with _opened_folder() as place:
            self._file = _open(place, _QUEUE, make=True)
        try:
            self._ask(fcntl.F_OFD_SETLK, self._number, 1)
        except OSError as error:
            os.close(self._file)
            raise _unusable(folder() / _QUEUE, error.strerror or str(error)) from error

    def first(self) -> bool:
        """Return whether this is the earliest ticket that still waits."""
        answer = self._ask(fcntl.F_OFD_GETLK, 0, self._number)
        return bool(struct.unpack(_FLOCK, answer)[0] == fcntl.F_UNLCK)

    def close(self) -> None:
        """Leave the queue."""
        os.close(self._file)

    def _ask(self, command: int, start: int, length: int) -> bytes:
        # Tickets are read locks, which need no write access to another user's file. Asking
        # whether a write lock is possible finds all of them.
        kind = fcntl.F_RDLCK if command == fcntl.F_OFD_SETLK else fcntl.F_WRLCK
        return fcntl.fcntl(
            self._file, command, struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0)
        )


def _file_name(uuid: str) -> str:
    return "".join(c if c.isalnum() or c == "-" else "_" for c in uuid) + ".lock"


@contextmanager
def _opened_folder() -> Iterator[int]:
    path = folder()
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700, parents=True)
        place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(path, str(error)) from error
    try:
        found = os.fstat(place)
        # Also repairs the mode after a kill between mkdir and here; only the owner can.
        if found.st_mode & 0o1777 != 0o1777 and found.st_uid == os.geteuid():
            os.fchmod(place, 0o1777)
        yield place
    finally:
        os.close(place)


def _unusable(path: Path, cause: str) -> GpuUnavailableError:
    return GpuUnavailableError(
        f"The GPU locks in {path} cannot be used",
        cause=cause,
        remedy=f"sudo rm -r {path} while nothing runs, or set {ENVIRONMENT} for all users",
    )


def _try_lock(place: int, name: str) -> int | None:
    while True:
        try:
            descriptor = _open(place, name, make=True)
        except OSError as error:
            raise _unusable(folder() / name, error.strerror or str(error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _still_named(place, name, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed between open and flock: the name now is another file


def _open(place: int, name: str, *, make: bool) -> int:
    """Open a lock file; with ``make``, create it if it is missing. Raises OSError."""
    for _ in range(100):
        try:
            # Never O_CREAT on an existing file: if another user made it in a sticky folder,
            # fs.protected_regular forbids that, even to root.
            return _checked(os.open(name, os.O_RDWR | _FLAGS, dir_fd=place))
        except PermissionError:
            # Another user's file, not (yet) writable for all. Reading is enough for a lock.
            return _checked(os.open(name, os.O_RDONLY | _FLAGS, dir_fd=place))
        except FileNotFoundError:
            if not make:
                raise
        with contextlib.suppress(FileExistsError):
            made = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666, dir_fd=place)
            os.fchmod(made, 0o666)  # whatever the umask
            return made
    raise OSError(f"{name} comes and goes")


def _checked(descriptor: int) -> int:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise OSError("it is not a plain file with one name")
    return descriptor


def _still_named(place: int, name: str, descriptor: int) -> bool:
    try:
        found = os.stat(name, dir_fd=place, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def _read(descriptor: int) -> Owner:
    try:
        values = json.loads(os.pread(descriptor, _MAX_TEXT, 0))
        return Owner(int(values["pid"]), one_line(str(values["command"]), 120))
    except (OSError, ValueError, KeyError, TypeError):
        return Owner()
