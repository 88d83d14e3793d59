"""Turns an ``OSError`` of a disk, a file system or the machine into an error with a remedy.

An ``OSError`` that no other code handles is not a bug of ours: its errno tells whether the given
path is at fault (exit 2) or the machine (exit 3), and what helps.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from harness.base.errors import ConfigError, HarnessError, InfrastructureError

_OWNER = "ls -ld shows whose it is; ask its owner, or work on a copy that is yours: cp -r"
_NAME = "look whether the path is right: ls -ld"

PLACE = {
    errno.EACCES: _OWNER,
    errno.EPERM: _OWNER,
    errno.EROFS: "it is mounted read-only: work on a copy (cp -r), or mount it for writing",
    errno.ENOENT: _NAME,
    errno.ENOTDIR: _NAME,
    errno.EISDIR: _NAME,
    errno.EEXIST: "another name",
    errno.ENOTEMPTY: "another name, or an empty folder",
    errno.ENAMETOOLONG: "a shorter name",
    errno.ELOOP: "its symbolic links lead in a circle: ls -l",
    errno.EINVAL: "another file system: this one does not take that name, or such a file",
    errno.EXDEV: "a folder on the same file system",
}
"""errno -> remedy, where the path that was given is at fault."""

MACHINE = {
    errno.ENOSPC: "make room (df -h, df -i), or write elsewhere",
    errno.EDQUOT: "make room within your quota (quota -s), or write elsewhere",
    errno.EFBIG: "a larger limit on the size of files (ulimit -f)",
    errno.EMFILE: "a larger limit on open files: ulimit -n 4096",
    errno.ENFILE: "close programs: the machine has too many files open",
    errno.ENOMEM: "free memory, or use a machine with more",
    errno.EAGAIN: "a larger limit on processes (ulimit -u), or end some",
    errno.EIO: "look after the disk (dmesg | tail); restore what is damaged from a copy",
    errno.ESTALE: "mount the network disk again",
}
"""errno -> remedy, where the machine is at fault."""


def known(error: OSError) -> bool:
    """Return whether the errno explains the error, so that no traceback is needed."""
    return error.errno in PLACE or error.errno in MACHINE


def explain(error: OSError, *, then: str = "") -> HarnessError:
    """Return the error as one of ours; ``then`` says what to do after the remedy."""
    number = error.errno or 0
    names = [name for name in (error.filename, error.filename2) if name is not None]
    where = " and ".join(map(shown, names)) or "The output, or an open file,"
    remedy = PLACE.get(number) or MACHINE.get(number) or "mend that, then the same again"
    return (ConfigError if number in PLACE else InfrastructureError)(
        f"{where} cannot be read or written.",
        cause=error.strerror or os.strerror(number)
        if known(error)
        else f"{type(error).__name__}: {error}",
        remedy=f"{remedy}; then: {then}" if then else remedy,
    )


def shown(path: object) -> str:
    """Return a path for a message; line breaks and bytes that are not text are escaped."""
    text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)
    return text if text.isprintable() else repr(text)


@contextmanager
def naming(path: os.PathLike[str], *, instead_of: os.PathLike[str] | None = None) -> Iterator[None]:
    """Put ``path`` into an OSError that names ``instead_of``, or, as those of writes, no file."""
    try:
        yield
    except OSError as error:
        if error.filename is None or (instead_of and error.filename == os.fspath(instead_of)):
            error.filename, error.filename2 = os.fspath(path), None
        raise
