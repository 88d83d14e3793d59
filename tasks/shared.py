"""Permissions of new files in the data folder, if a group shares that folder.

An admin shares it by the setgid bit (``chgrp ml DIR; chmod 2770 DIR``), which new folders inherit.
Below such a folder the group has the same rights as on the folder itself, whatever the umask of
the user who makes a file. In other folders nothing is changed, and the umask decides.
"""

import contextlib
import errno
import grp
import os
import pwd
import stat
from pathlib import Path

FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
DIRECTORIES, FILES, LOCKS = 0o070, 0o040, 0o060
HIDDEN = ("search", "test")
SPLITS = ("train", *HIDDEN)
SUFFIX = {"search": "", "test": "_test"}
"""Of a baseline's name in the manifest, by the hidden split that it was measured on."""


def group_rights(folder: Path, most: int = DIRECTORIES) -> int:
    """Return the group's mode bits for a new entry in ``folder``: 0 if it is not shared."""
    mode = folder.stat().st_mode
    return mode & most if mode & stat.S_ISGID else 0


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, each shared like its own parent. Raises OSError."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    inherit_group(path)


def inherit_group(path: Path) -> None:
    """Give a new file or folder the group, and the group's rights, of the folder around it."""
    rights = group_rights(path.parent, DIRECTORIES if path.is_dir() else FILES)
    if rights:
        _set(path, rights | stat.S_IMODE(path.stat().st_mode), path.parent.stat().st_gid)


def set_modes(data: Path) -> None:
    """Let every user, so also the sandbox's, read ``train/``, and only the owner the other splits.

    The umask does not matter. The group of a shared folder can read all; the sandbox's user is
    in no group.
    """
    for path in (data, *data.glob("*.*")):
        inherit_group(path)
    rights = group_rights(data.parent)
    setgid, group = (stat.S_ISGID, data.parent.stat().st_gid) if rights else (0, None)
    for split, others in (("train", 0o055), *((name, 0) for name in HIDDEN)):
        for path in (data / split, *(data / split).rglob("*")):
            if path.is_dir():
                _set(path, 0o700 | others | rights | setgid, group)
            else:
                _set(path, 0o600 | others & 0o044 | rights & FILES, group)


def unreadable_by_group(root: Path) -> list[Path]:
    """Return the paths in a shared data folder that its group cannot read, two levels deep.

    These were made before the folder was shared, or copied there by hand.
    """
    group, found = root.stat().st_gid, []
    with contextlib.suppress(OSError):
        for path in sorted((*root.glob("[!.]*"), *root.glob("[!.]*/*"))):
            at = path.stat()
            wanted = 0o050 if stat.S_ISDIR(at.st_mode) else 0o040
            if at.st_gid != group or at.st_mode & wanted != wanted:
                found.append(path)
    return found


def cause_and_remedy(error: OSError, root: Path) -> tuple[str, str]:
    """Return cause and remedy for an error with a file below the data folder ``root``."""
    path = Path(str(error.filename or root))
    cause = str(error)
    if error.errno not in FORBIDDEN:
        return cause, f"free some space, or make {root} writable, or choose another data folder"
    for around in (path, *path.parents):  # the nearest one that can be examined
        with contextlib.suppress(OSError):
            found = around.stat()
            rights = stat.S_IMODE(found.st_mode)
            cause += f"; {around} is {owner(found.st_uid)}'s, mode {rights:o}"
            break
    return cause, (
        f"have its owner prepare the data, or share {root} with a group "
        "(docs/guides/shared-server.md), or set HARNESS_DATA to a folder of your own"
    )


def owner(uid: int) -> str:
    """Return a user's name, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def group_of(path: Path) -> str:
    """Return the name of a file's group, or its number where there is none. Raises OSError."""
    number = path.stat().st_gid
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _set(path: Path, mode: int, group: int | None) -> None:
    # Another user's file is used as it is, and so is a folder on a read-only mount.
    with contextlib.suppress(OSError):
        found = path.stat()
        if group is not None and group != found.st_gid:
            os.chown(path, -1, group)
        if stat.S_IMODE(found.st_mode) != mode:
            path.chmod(mode)


def open_lock(path: Path) -> int | None:
    """Return a descriptor for ``flock``, even of another user's file; None if there is none.

    None means that this process cannot write in the folder, and so needs no lock. Raises OSError.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        made = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | flags)
        return None
    if rights := group_rights(path.parent, LOCKS):
        _set(path, 0o644 | rights, path.parent.stat().st_gid)
    return made
