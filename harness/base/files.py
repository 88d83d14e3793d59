"""Reads files that somebody else may have made, and writes files whole or not at all.

Reading can neither hang nor fill the memory: a pipe is not waited for, a device is not read and a
large file is not loaded. A link in a folder is not followed, because a submission or a run from
somebody else may hold a link to a secret.
"""

import errno
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from harness.base.errors import ConfigError
from harness.base.faults import naming

MOST_BYTES = 16 << 20
NOT_REGULAR = "it is no regular file"


def open_plain(file: Path, *, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading. Raises OSError for anything else.

    ``follow``: also follow a link; only for a path that the user named.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(file, flags if follow else flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            why = "it is a link; links in a folder are not followed"
        elif error.errno == errno.ENXIO:  # a socket
            why = NOT_REGULAR
        else:
            raise
        raise OSError(error.errno, why, str(file)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, NOT_REGULAR, str(file))
    return os.fdopen(descriptor, "rb")


def read_plain(file: Path, *, most: int = MOST_BYTES, follow: bool = False) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes. Raises OSError."""
    with open_plain(file, follow=follow) as opened:
        large = os.fstat(opened.fileno()).st_size > most
        # Count what is read as well: some files report no size, and some grow.
        content = b"" if large else opened.read(most + 1)
    if large or len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(file))
    return content


def read_text(file: Path, *, most: int = MOST_BYTES, follow: bool = False) -> str:
    """Return the text of a regular UTF-8 file, with "\\n" for every end of a line.

    Raises OSError, UnicodeDecodeError; see ``open_plain``.
    """
    text = read_plain(file, most=most, follow=follow).decode()
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object from a file. Raises ConfigError naming the file."""
    values, _ = read_values(file)
    return values


def read_values(
    file: Path, parse: Callable[[str], Any] = json.loads, *, follow: bool = False
) -> tuple[dict[str, Any], str]:
    """Return the JSON object in a file (``parse``: another format), and the file's text.

    ``follow``: see ``open_plain``. Raises ConfigError naming the file.
    """
    try:
        text = read_text(file, follow=follow)
        value = parse(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read.", cause=str(error)) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{file} holds no JSON object.")
    return value, text


def fresh_folder(parent: Path, stem: str) -> Path:
    """Make a folder named ``stem`` or, if that exists, the first free of STEM.2, STEM.3, …

    Raises OSError where no folder can be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    path, number = parent / stem, 1
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            path = parent / f"{stem}.{number}"
        else:
            return path


def write_whole(path: Path, content: str | bytes, *, sync: bool = True) -> None:
    """Write a file whole or not at all.

    Without ``sync`` the file may be lost if the power fails, but never if the process is killed.
    Raises OSError naming the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which then replaces ``path``, or is removed after any exception.

    Raises OSError naming ``path``: nobody knows the other name.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with naming(path, instead_of=temporary):
            yield temporary
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
