"""Unpacks a bundle from an untrusted sender.

Nothing in the bundle is trusted. It is read as a stream with a limit on every size, one header
after the other, and only plain files with plain relative names are accepted. Everything else
(links, devices, sparse files, long-name and extended headers, a repeated name, a name that leaves
the folder) is refused before its content is read, with a message that names it. Files are written
into a new folder, so no link can be in their path. Scores are not checked here but in ``verify``.
"""

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from harness.base.errors import ConfigError
from harness.base.faults import explain, naming
from harness.base.files import open_plain
from harness.base.validation import problems
from harness.report.bundle.manifest import NAME, PLAIN, BundleManifest
from harness.report.bundle.pack import zstandard

BLOCK = 512
MOST_FILES = 100_000
MOST_BYTES = 4 << 30
MOST_FILE_BYTES = 256 << 20
MOST_MANIFEST_BYTES = 32 << 20
MOST_RATIO = 2_000
"""Unpacked bytes per packed byte. Logs of one repeated line reach a few hundred."""
FREE_BYTES = 64 << 20
"""Any archive may unpack to this many bytes, whatever its ratio."""
MOST_WINDOW = 1 << 27
ZSTD, GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"

KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.DIRTYPE: "a folder of its own",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.GNUTYPE_LONGNAME: "a name that is too long",
    tarfile.GNUTYPE_LONGLINK: "a link's name that is too long",
    tarfile.XHDTYPE: "an extended header",
    tarfile.XGLTYPE: "an extended header",
}


class ByteSource(Protocol):
    """An object to read bytes from: the zstd or the gzip decompressor."""

    def read(self, size: int, /) -> bytes: ...


class BadBundle(ConfigError):
    """The archive is not a valid bundle, or it is malicious."""


def unpack(archive: Path, folder: Path) -> BundleManifest:
    """Write a bundle's files into the new ``folder``, and check each against the manifest.

    Raises ConfigError naming the file and what is wrong with it, InfrastructureError if the disk
    is full or broken.
    """
    with _stream(archive) as stream:
        members = _members(stream, archive)
        name, size = next(members, ("", 0))
        if name != NAME:
            raise BadBundle(f"{archive} is no bundle: its first file is not {NAME}.")
        if size > MOST_MANIFEST_BYTES:
            raise BadBundle(f"{NAME} in {archive} is larger than {MOST_MANIFEST_BYTES >> 20} MiB.")
        manifest = _manifest(b"".join(_content(stream, size)), archive)
        wanted = {member.path: member for member in manifest.files}
        if len(wanted) != len(manifest.files):
            raise BadBundle(f"{NAME} in {archive} names a file twice.")
        seen: set[str] = set()
        for name, size in members:
            member = wanted.get(name)
            if member is None or name in seen:
                why = "is there twice" if name in seen else f"is not in {NAME}"
                raise BadBundle(f"{name!r} in {archive} {why}.")
            if size != member.bytes:
                raise BadBundle(f"{name} in {archive} has {size:,} bytes, not {member.bytes:,}.")
            if _write(folder / name, stream, size) != member.sha256:
                raise BadBundle(
                    f"{name} in {archive} is not the file that was packed: its SHA-256 differs.",
                    remedy="fetch the bundle again, or ask whoever made it",
                )
            seen.add(name)
        missing = sorted(wanted.keys() - seen)
        if missing:
            more = f", and {len(missing) - 1} more" if missing[1:] else ""
            raise BadBundle(f"{missing[0]} is missing in {archive}{more}.")
    return manifest


class _Limited:
    """A stream that raises BadBundle when it yields more bytes than any run holds.

    ``fault``: what ``inner`` raises of its own where the archive is damaged.
    """

    def __init__(
        self, inner: ByteSource, fault: type[Exception], packed_bytes: int, archive: Path
    ) -> None:
        self._inner, self._fault, self._archive = inner, fault, archive
        self._left = min(MOST_BYTES, max(FREE_BYTES, MOST_RATIO * packed_bytes))

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes. Raises BadBundle: ended early, damaged or too large."""
        chunks = []
        while size:
            try:
                chunk = self._inner.read(min(size, 1 << 20))
            except (OSError, EOFError, ValueError, self._fault) as error:
                raise BadBundle(f"{self._archive} is damaged.", cause=str(error)) from error
            if not chunk:
                raise BadBundle(f"{self._archive} ends in the middle.", remedy="fetch it again")
            self._left -= len(chunk)
            if self._left < 0:
                raise BadBundle(f"{self._archive} unpacks to far more than a run holds: a bomb.")
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)


@contextmanager
def _stream(archive: Path) -> Iterator[_Limited]:
    try:
        file = open_plain(archive, follow=True)
        start = file.read(4)
        file.seek(0)
    except OSError as error:
        raise ConfigError(f"{archive} cannot be read.", cause=str(error)) from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if start == ZSTD:
            zstd = zstandard()
            opened = zstd.ZstdDecompressor(max_window_size=MOST_WINDOW)
            with opened.stream_reader(file) as stream:
                yield _Limited(stream, zstd.ZstdError, size, archive)
        elif start[:2] == GZIP:
            with gzip.GzipFile(fileobj=file) as stream:
                yield _Limited(stream, zlib.error, size, archive)
        else:
            raise BadBundle(f"{archive} is neither .tar.zst nor .tar.gz.")


def _members(stream: _Limited, archive: Path) -> Iterator[tuple[str, int]]:
    """Yield name and size of each file. The caller must read its content before the next step."""
    for count in range(MOST_FILES + 1):
        block = stream.read(BLOCK)
        if not block.strip(b"\0"):
            return
        if count == MOST_FILES:
            raise BadBundle(f"{archive} holds more than {MOST_FILES:,} files.")
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise BadBundle(
                f"{archive} is damaged: no header of a file.", cause=str(error)
            ) from error
        if info.type != tarfile.REGTYPE:
            kind = KINDS.get(info.type, "no plain file")
            raise BadBundle(f"{info.name!r} in {archive} is {kind}: refused.")
        if not PLAIN.match(info.name):
            raise BadBundle(f"{info.name!r} in {archive} is no name inside a run: refused.")
        if not 0 <= info.size <= MOST_FILE_BYTES:
            raise BadBundle(f"{info.name} in {archive} is larger than {MOST_FILE_BYTES >> 20} MiB.")
        yield info.name, info.size


def _content(stream: _Limited, size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = stream.read(min(left, 1 << 20))
        left -= len(chunk)
        yield chunk
    if size % BLOCK:
        stream.read(BLOCK - size % BLOCK)


def _manifest(content: bytes, archive: Path) -> BundleManifest:
    try:
        return BundleManifest.model_validate_json(content)
    except ValidationError as error:
        raise BadBundle(
            f"{NAME} in {archive} is damaged: {problems(error, BundleManifest)}"
        ) from None


def _write(file: Path, stream: _Limited, size: int) -> str:
    digest = sha256()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with naming(file), os.fdopen(descriptor, "wb") as opened:
            for chunk in _content(stream, size):
                digest.update(chunk)
                opened.write(chunk)
    except OSError as error:
        raise explain(error) from error
    return digest.hexdigest()
