"""What a sandbox keeps on the host: one folder, a lock on it, its scratch disk, and its user.

The owner of a folder holds its lock (``flock``); the kernel frees the lock when the owner ends
for any reason. So ``sweep`` needs no pid files, which would mislead when pids are reused.

The folders lie in ``$HARNESS_STATE``, by default ``/tmp/harness-<uid>``, mode 0700.

If the harness is root, each sandbox also has a user of its own: the kernel counts much by user
(inotify instances, pages in pipes, pending signals, keys), and two sandboxes with the same user
could starve each other. A lock claims the user, too, in one folder for all harnesses of root.
"""

import contextlib
import ctypes
import fcntl
import os
import random
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import SandboxLostError, SandboxStartError
from sandboxes import cgroup

_MS_NOSUID, _MS_NODEV, _MNT_DETACH = 2, 4, 2
_BYTES_PER_INODE = 4096
"""Limits the number of files on a scratch disk: empty files cost kernel memory too."""

USERS = range(60_600, 61_100)
"""Uids of sandboxes, if we may choose: above those that ``adduser`` gives to people, below those
that systemd gives to services, and mapped in any container that has users at all."""
_CLAIMS = Path("/tmp/harness-users")  # noqa: S108


def root() -> Path:
    """Return the folder of all sandboxes of this user; make it if it is missing.

    Raises SandboxStartError if others own it or have rights on it: ``/tmp`` is open to all.
    """
    return _ours(Path(os.environ.get("HARNESS_STATE") or f"/tmp/harness-{os.getuid()}"))  # noqa: S108


def _ours(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise SandboxStartError(
            f"No place for sandboxes: {path}",
            cause=str(error),
            remedy="set HARNESS_STATE to a folder of yours",
        ) from error
    if path.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SandboxStartError(
            f"The place for sandboxes, {path}, is not ours alone",
            cause=f"owner {found.st_uid}, mode {found.st_mode & 0o777:o}",
            remedy=f"rm -r {path}, or set HARNESS_STATE to a folder of mode 0700",
        )
    return path


class StateDir:
    """One sandbox's folder. ``name`` is also the name of its control group.

    ``own_user`` asks for a user for this sandbox alone. ``user`` is its uid and gid, for files and
    processes; None if not asked for, or if we may not choose users. Raises SandboxStartError.
    """

    def __init__(self, kind: str, *, own_user: bool = False) -> None:
        place = root()
        self.user: int | None = None
        self._claim: int | None = None
        if own_user and chooses_users():
            self.user, self._claim = _claim()
        self.name = f"harness-{kind}-{secrets.token_hex(4)}"
        self.path = place / self.name
        with _exclusive(place):
            # Under the common lock, so that no sweep sees the folder before its owner locks it.
            self.path.mkdir(mode=0o700)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.disk = self.path / "disk"
        self.disk.mkdir(mode=0o755)

    def mount_disk(self, size_bytes: int) -> None:
        """Mount a tmpfs of this size on ``disk``. Needs root. It counts as memory."""
        inodes = 1024 + size_bytes // _BYTES_PER_INODE
        options = f"size={size_bytes},nr_inodes={inodes},mode=755"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(
            b"harness", bytes(self.disk), b"tmpfs", _MS_NOSUID | _MS_NODEV, options.encode()
        ):
            raise SandboxStartError(
                "The sandbox's disk could not be mounted",
                cause=os.strerror(ctypes.get_errno()),
                remedy="run as a user who may mount, or not as root at all",
            )

    def remove(self) -> None:
        """Unmount and delete. The lock is freed last: until then no sweep touches the folder."""
        _delete(self.path)
        os.close(self._lock)
        if self._claim is not None:
            # To close is not enough: a forked child may hold a copy of the descriptor.
            fcntl.flock(self._claim, fcntl.LOCK_UN)
            os.close(self._claim)
            self._claim = None


def chooses_users() -> bool:
    """Return whether sandboxes can have users of their own: only root may change its user.

    If it is in a user namespace, then only to a user that this namespace maps.
    """
    maps = [Path(f"/proc/self/{kind}_map") for kind in ("uid", "gid")]
    return os.geteuid() == 0 and all(_known(path.read_text()) for path in maps)


def _known(text: str) -> bool:
    ranges = [[int(word) for word in line.split()] for line in text.splitlines()]
    return any(first <= USERS[0] and USERS[-1] < first + count for first, _, count in ranges)


def _claim() -> tuple[int, int]:
    """Return the uid of a user that no live sandbox has, and the lock that claims it."""
    place = _ours(_CLAIMS)
    # In random order: a harness that does not see our locks (in a container) should choose other
    # users, since it shares the kernel's counts with us.
    for user in random.sample(USERS, len(USERS)):
        try:
            fd = os.open(place / str(user), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SandboxStartError(
                f"No user for a sandbox can be claimed in {place}",
                cause=str(error),
                remedy="make room there",
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        return user, fd
    raise SandboxStartError(
        "Every user for sandboxes is taken",
        cause=f"{len(USERS)} are in use, by their locks in {place}",
        remedy="wait until some evaluations have ended",
    )


def sweep(kind: str) -> tuple[str, ...]:
    """Remove sandboxes of this kind whose owners are dead: processes, groups, disks, folders."""
    removed = []
    place = root()
    with _exclusive(place):
        for path in sorted(place.glob(f"harness-{kind}-*")):
            fd = _dead_owner(path)
            if fd is None:
                continue
            try:
                cgroup.remove_named(path.name)
                _delete(path)
                removed.append(path.name)
            finally:
                os.close(fd)
    return tuple(removed)


def _dead_owner(path: Path) -> int | None:
    """Lock a folder whose owner is dead and return the lock; None if the owner lives."""
    try:
        fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


@contextlib.contextmanager
def _exclusive(place: Path) -> Iterator[None]:
    fd = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _delete(path: Path) -> None:
    disk = path / "disk"
    if disk.is_mount():
        libc = ctypes.CDLL(None, use_errno=True)
        # Detached, so that a transfer's open file cannot block it. The disk's memory is freed.
        if libc.umount2(bytes(disk), _MNT_DETACH):
            raise SandboxLostError(
                f"The sandbox's disk {disk} could not be unmounted",
                cause=os.strerror(ctypes.get_errno()),
                remedy=f"umount -l {disk}",
            )
    # Not shutil.rmtree: it recurses, and a submission can leave 100,000 nested folders, or
    # unreadable ones. Neither rm nor chmod -R follows links on the way down.
    subprocess.run(["/bin/rm", "-rf", "--one-file-system", path], capture_output=True, timeout=600)
    if path.exists():
        subprocess.run(["/bin/chmod", "-R", "u+rwx", path], capture_output=True, timeout=600)
        done = subprocess.run(["/bin/rm", "-rf", path], capture_output=True, timeout=600)
        if path.exists():
            raise SandboxLostError(
                f"The sandbox's folder {path} could not be removed",
                cause=done.stderr.decode(errors="replace")[-500:],
                remedy=f"rm -rf {path}",
            )
