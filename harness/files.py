"""Files that somebody else may have made, read so that they can neither hang us nor fill us.

A pipe is not waited for, a device not read, a large file not loaded; and what lies in a folder is
not followed to elsewhere, for a submission or a run that was sent may hold a link to a secret.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 16 << 20
NOT_REGULAR = "it is no regular file"


def open_plain(file: Path, *, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading. Raises OSError for anything else.

    ``follow``: a link may lead to it, because a user named it and nobody else did.
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
    """Return what a regular file of at most ``most`` bytes holds. Raises OSError."""
    with open_plain(file, follow=follow) as opened:
        large = os.fstat(opened.fileno()).st_size > most
        # By what comes as well: some files do not know their size, and some grow.
        content = b"" if large else opened.read(most + 1)
    if large or len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(file))
    return content


def read_text(file: Path, *, most: int = MOST_BYTES, follow: bool = False) -> str:
    """Return what a regular UTF-8 file holds, with "\\n" for every end of a line.

    Raises OSError, UnicodeDecodeError; see ``open_plain``.
    """
    text = read_plain(file, most=most, follow=follow).decode()
    return text.replace("\r\n", "\n").replace("\r", "\n")
