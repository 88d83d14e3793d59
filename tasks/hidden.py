"""The hidden key: with it, nobody can draw the hidden rows from this repository alone.

Our generators and their seeds are public, so a submission could contain the labels of all rows
that they draw. With a key, the rows of search and test come from a seed derived from the key;
training rows stay as published, the same for everybody. The first preparation writes the key to
the file hidden.key in the data root, beside the prepared folders and in none of them. Only its
owner can read it, or, in a folder that a group shares (``tasks/shared.py``), also the group.
``$HARNESS_HIDDEN_KEY`` overrides the file: 64 hex digits, or ``public`` for no key at all.
"""

import contextlib
import hmac
import os
import secrets
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness.base.digests import digest
from harness.base.errors import ConfigError
from tasks.shared import FILES, group_of, group_rights, make_folder, owner

VARIABLE, PUBLIC = "HARNESS_HIDDEN_KEY", "public"
FILE = "hidden.key"
PARAMETER = "hidden_key"
"""The manifest's parameter with the key's fingerprint; absent if the rows are as published."""
BYTES = 32


@dataclass(frozen=True)
class HiddenKey:
    """A private key. No text that shows it contains more than its fingerprint."""

    secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """The first 16 hex digits of the key's SHA-256."""
        return digest(self.secret)

    def seed(self, task: str, public: int) -> int:
        """Return the seed (below 2**128) of a task's hidden rows; ``public`` is its public seed.

        Both hidden splits share the seed: they are drawn together, so that neither only gets
        what the other has not taken.
        """
        text = f"{task}|search and test|{public}".encode()
        return int.from_bytes(hmac.digest(self.secret, text, "sha256")[:16])


def hidden_key(root: Path) -> HiddenKey | None:
    """Return the key of the data root, made if it is missing; None for ``public``.

    Raises ConfigError if the variable or file holds no valid key, or the file cannot be made.
    """
    if os.environ.get(VARIABLE):
        return _given(os.environ[VARIABLE])
    if not _is_there(root / FILE):
        _make(root)
    return _read(root / FILE)


def known_key(root: Path) -> HiddenKey | None:
    """Return the key as ``hidden_key`` does, but None if none exists yet."""
    if not os.environ.get(VARIABLE) and not _is_there(root / FILE):
        return None
    return hidden_key(root)


def named(fingerprint: str) -> str:
    """Return a text for a manifest's fingerprint; "" stands for rows as published."""
    return f"the hidden key {fingerprint}" if fingerprint else "no hidden key"


def remedy(fingerprint: str) -> str:
    """Return how to get the rows of a fingerprint; "" stands for rows as published."""
    if not fingerprint:
        return f"{VARIABLE}={PUBLIC}"
    return f"{VARIABLE}=KEY, or its file in the data root, where its owner has given it to you"


def _given(value: str) -> HiddenKey | None:
    if value == PUBLIC:
        return None
    key = _parsed(value)
    if key is None:
        raise ConfigError(
            f"${VARIABLE} holds no key.",
            cause=f"its {len(value)} characters are neither {2 * BYTES} hex digits nor {PUBLIC!r}",
            remedy=f"{VARIABLE}={PUBLIC} for the published rows; unset it for the data root's key",
        )
    return key


def _read(file: Path) -> HiddenKey:
    mend = (
        f"put a whole copy of it there, or remove {file}: the next prepare makes another key, "
        f"whose scores compare with none before; or {VARIABLE}={PUBLIC}"
    )
    for wait_s in (0.0, 0.1, 0.3, 0.6):
        time.sleep(wait_s)  # where there are no hard links, a key may be empty for a moment
        try:
            with file.open("rb") as opened:
                content = opened.read(1024)
        except OSError as error:
            raise _unreadable(file, error) from None
        if content:
            break
    key = _parsed(content.decode("ascii", "replace").removesuffix("\n"))
    if key is None:  # never show the content: part of a key is still a secret
        cause = f"it should hold {2 * BYTES} hex digits"
        raise ConfigError(f"The hidden key {file} is damaged.", cause=cause, remedy=mend)
    return key


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError as error:  # the folder cannot be entered
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: OSError) -> ConfigError:
    cause = error.strerror or type(error).__name__
    remedy = f"let its owner give you a copy, or set {VARIABLE}; or choose another data folder"
    with contextlib.suppress(OSError):
        found = file.stat()
        cause += f": it is {owner(found.st_uid)}'s, mode {stat.S_IMODE(found.st_mode):o}"
        if group_rights(file.parent):
            mend = f"chgrp {group_of(file.parent)} {file} && chmod 640 {file}"
            remedy = f"its owner runs: {mend}; or {remedy}"
    return ConfigError(f"The hidden key {file} cannot be read.", cause=cause, remedy=remedy)


def _parsed(text: str) -> HiddenKey | None:
    if len(text) != 2 * BYTES or not set(text) <= set("0123456789abcdefABCDEF"):
        return None
    return HiddenKey(bytes.fromhex(text))


def _make(root: Path) -> None:
    """Write a new key; if another process writes one first, keep that. Raises ConfigError."""
    file = root / FILE
    part = root / f".{FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    key = secrets.token_hex(BYTES) + "\n"
    try:
        make_folder(root)
        mode = 0o600 | group_rights(root, FILES)
        try:
            _write(part, key, mode)
            try:
                # A link, not a rename: it fails if the file exists, and is never half written.
                os.link(part, file)
            except OSError as error:
                if isinstance(error, FileExistsError):
                    raise
                _write(file, key, mode)  # a disk without hard links
        except FileExistsError:
            pass
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The hidden key {file} cannot be made.",
            cause=str(error),
            remedy=f"make {root} writable, or choose another data folder, or {VARIABLE}={PUBLIC}",
        ) from error


def _write(file: Path, text: str, mode: int) -> None:
    """Write a new file of that mode, whatever the umask. Raises FileExistsError, OSError."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        os.fchmod(descriptor, mode)
        out.write(text)
        out.flush()
        os.fsync(descriptor)
