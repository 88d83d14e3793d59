"""Copies files into and out of a sandbox's scratch folder, while hostile code may run in it.

Everything below the scratch folder belongs to the submission: it can replace a folder by a
link between our check and our use. So the kernel never gets a whole path: each component is
opened relative to the descriptor of its parent folder, and links are never followed.

Only regular files and folders come out, with modes that we set. Links and special files are
refused, not skipped: an incomplete result is worse than none. A hard link counts each time it
appears, a sparse file with its full length.
"""

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from harness.base.errors import TransferError

_CHUNK = 1 << 20
_MAX_ENTRIES = 10_000
_MAX_DEPTH = 64
_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking: opening a FIFO would otherwise wait for a writer that never comes.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def parts_under_work(path: str) -> tuple[str, ...]:
    """Split ``/work/a/b`` into ``("a", "b")``. Raises TransferError for any other place."""
    pure = PurePosixPath(path)
    if pure.parts[:2] != ("/", "work") or ".." in pure.parts or "\0" in path:
        raise TransferError(
            f"{path!r} is not under /work",
            cause="files go into and out of a sandbox by its scratch folder only",
            remedy="give a path that begins with /work/ and has no '..'",
        )
    return pure.parts[2:]


def put(work: Path, src: Path, dst: str, owner: int | None) -> None:
    """Copy ``src`` to ``dst``, a path under ``/work``, whose host folder is ``work``.

    Missing folders on the way are made, an existing file is replaced, a folder is merged.
    With ``owner`` given (root only) everything made belongs to that uid. Raises TransferError.
    """
    parts = parts_under_work(dst)
    with _reported(f"Could not copy {src} to {dst}"):
        source = src.resolve(strict=True)
        if source.is_dir():
            with _descend(work, parts, make=True, owner=owner) as into:
                _put_folder(source, into, owner)
        else:
            if not parts:
                raise TransferError(f"{dst} is a folder, {src} a file")
            with _descend(work, parts[:-1], make=True, owner=owner) as into:
                _put_file(source, into, parts[-1], owner)


def get(work: Path, src: str, dst: Path, max_bytes: int) -> None:
    """Copy ``src``, a path under ``/work``, to ``dst``, completely or not at all.

    An existing file is replaced; an existing folder must be empty. Raises TransferError.
    """
    parts = parts_under_work(src)
    partial = dst.with_name(f".{dst.name}.{secrets.token_hex(4)}.partial")
    counted = _Counted(src, max_bytes)
    with _reported(f"Could not copy {src} to {dst}"):
        try:
            if not parts:
                with _descend(work, ()) as folder:
                    _get_folder(folder, partial, counted, 0)
            else:
                with _descend(work, parts[:-1]) as folder:
                    _get_entry(folder, parts[-1], partial, counted, 0)
            partial.replace(dst)
        except BaseException:
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _reported(message: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            cause = "a link or a file stands where a folder was expected"
        elif error.errno == errno.ENXIO:
            cause = "a special file"
        raise TransferError(message, cause=cause) from error


@contextlib.contextmanager
def _descend(
    work: Path, parts: tuple[str, ...], *, make: bool = False, owner: int | None = None
) -> Iterator[int]:
    """Yield a descriptor of the folder ``parts`` below ``work``."""
    fd = os.open(work, _DIR)
    try:
        for part in parts:
            if make:
                _make_folder(fd, part, owner)
            below = os.open(part, _DIR, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _make_folder(parent: int, name: str, owner: int | None) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
        if owner is not None:
            # By descriptor: the name may already be something else.
            fd = os.open(name, _DIR, dir_fd=parent)
            try:
                os.fchown(fd, owner, owner)
            finally:
                os.close(fd)


def _put_folder(source: Path, into: int, owner: int | None) -> None:
    for entry in sorted(os.scandir(source), key=lambda e: e.name):
        if entry.is_symlink():
            raise TransferError(f"{entry.path} is a link; only files and folders are copied")
        if entry.is_dir(follow_symlinks=False):
            _make_folder(into, entry.name, owner)
            below = os.open(entry.name, _DIR, dir_fd=into)
            try:
                _put_folder(Path(entry.path), below, owner)
            finally:
                os.close(below)
        else:
            _put_file(Path(entry.path), into, entry.name, owner)


def _put_file(source: Path, into: int, name: str, owner: int | None) -> None:
    fd = os.open(source, _READ)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise TransferError(f"{source} is not a plain file")
        # Never written into: an existing entry may be a FIFO, or a link to elsewhere.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=into)
        out = os.open(name, _CREATE, 0o600, dir_fd=into)
        try:
            while chunk := os.read(fd, _CHUNK):
                _write_all(out, chunk)
            os.fchmod(out, 0o755 if found.st_mode & 0o100 else 0o644)
            if owner is not None:
                os.fchown(out, owner, owner)
        finally:
            os.close(out)
    finally:
        os.close(fd)


class _Counted:
    """Counts bytes and entries copied so far. Raises TransferError above the limits."""

    def __init__(self, src: str, max_bytes: int) -> None:
        self._src = src
        self._max_bytes = max_bytes
        self.bytes_left = max_bytes
        self._entries_left = _MAX_ENTRIES

    def entry(self) -> None:
        self._entries_left -= 1
        if self._entries_left < 0:
            raise TransferError(f"{self._src} holds more than {_MAX_ENTRIES} files")

    def take(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise TransferError(f"{self._src} is larger than {self._max_bytes} bytes")


def _get_entry(parent: int, name: str, dst: Path, counted: _Counted, depth: int) -> None:
    counted.entry()
    fd = os.open(name, _READ, dir_fd=parent)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            _get_folder(fd, dst, counted, depth)
        elif stat.S_ISREG(mode):
            _get_file(fd, dst, counted)
        else:
            raise TransferError(f"{name!r} is not a plain file")
    finally:
        os.close(fd)


def _get_folder(fd: int, dst: Path, counted: _Counted, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise TransferError(f"{dst.name!r} lies more than {_MAX_DEPTH} folders deep")
    dst.mkdir(mode=0o755)
    with os.scandir(fd) as entries:
        for entry in entries:
            _get_entry(fd, entry.name, dst / entry.name, counted, depth + 1)


def _get_file(fd: int, dst: Path, counted: _Counted) -> None:
    # Counted while copying as well: a living process may still be writing to it.
    if os.fstat(fd).st_size > counted.bytes_left:
        counted.take(os.fstat(fd).st_size)
    out = os.open(dst, _CREATE, 0o644)
    try:
        while chunk := os.read(fd, min(_CHUNK, counted.bytes_left + 1)):
            counted.take(len(chunk))
            _write_all(out, chunk)
    finally:
        os.close(out)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
