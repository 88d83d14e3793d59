"""Where the data of LRA tasks come from: the published archives, or copies on this disk.

``source`` in a profile's data table is ``generated``, the name of the published source (downloaded
once, kept under the data folder), or a folder, which ``--data DIR`` puts there.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.base.errors import ConfigError, InfrastructureError
from tasks.definition import Progress
from tasks.download import Remote, fetch
from tasks.prepared import PreparationLock
from tasks.shared import inherit_group, make_folder

GENERATED = "generated"

RELEASE = Remote(
    "https://storage.googleapis.com/long-range-arena/lra_release.gz",
    "lra_release.gz",
    damage=lambda path: "" if tarfile.is_tarfile(path) else "it is no tar archive",
)
"""Long Range Arena's own archive: 8.2 GB, 18.6 GB unpacked. No checksum of it is published."""
RELEASE_FOLDERS = ("lra_release/lra_release", "lra_release", ".")
"""Where the archive's folders may be. The inner one first: the outer pathfinder128 is a broken copy
(google-research/long-range-arena, issue 38)."""


def folder_of(source: str) -> Path:
    """Return the folder that ``source`` names, absolute. Raises ConfigError."""
    folder = Path(source).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(
            f"There is no folder {folder} to take data from.",
            remedy="--data takes a folder; leave it out for the profile's own source",
        )
    return folder


def identity(paths: Iterable[Path]) -> str:
    """Return a text that changes when one of the files may have changed, without reading them."""
    state = hashlib.sha256()
    for path in sorted(paths):
        stat = path.stat()
        state.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return state.hexdigest()


def first_that_is(folder: Path, names: Iterable[str], what: str, wanted: str) -> Path:
    """Return the first of ``names`` in ``folder`` that exists. Raises ConfigError."""
    names = tuple(names)
    for name in names:
        if (folder / name).exists():
            return folder / name
    found = sorted(path.name for path in folder.iterdir())[:8]
    raise ConfigError(
        f"{folder} does not hold {what}.",
        cause=f"looked for {', '.join(names)}; it has {', '.join(found) or 'nothing'}",
        remedy=wanted,
    )


def download(remote: Remote, root: Path, progress: Progress, *, what: str = "") -> Path:
    """Return the file, downloaded once into ``root/downloads``. Raises what ``fetch`` does."""
    folder = root / "downloads"
    make_folder(folder)
    with PreparationLock(folder / f".{remote.name}.lock", progress):
        return fetch([remote], folder, progress, what=what)[0]


@contextmanager
def naming(path: Path, remedy: str = "") -> Iterator[None]:
    """Turn errors in reading ``path`` into a ConfigError that names the file."""
    try:
        yield
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        # zlib.error is not listed: gzip and tarfile convert what they can, ``members`` the rest.
        raise ConfigError(
            f"{path} cannot be read.",
            cause=str(error) or type(error).__name__,
            remedy=remedy or "replace it by a whole copy",
        ) from error


def members(
    archive: Path, wanted: Callable[[str], bool], progress: Progress, total: int
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the regular files of a tar archive whose name ``wanted`` accepts.

    Nothing is written to disk. ``total`` is about how many there are. Raises ConfigError.
    """
    done = 0
    with naming(archive, f"remove {archive}, and run the same command again"):
        try:
            with tarfile.open(archive, "r|*") as tar:
                for member in tar:
                    if not member.isfile() or not wanted(member.name):
                        continue
                    file = tar.extractfile(member)
                    if file is None:
                        continue
                    yield member.name, file.read()
                    done += 1
                    if done % 1000 == 0:
                        progress(f"reading {archive.name}, files", done, max(done, total))
        except zlib.error as error:
            raise ValueError(str(error)) from error


def release(name: str, root: Path, progress: Progress) -> Path:
    """Return the folder ``name`` of Long Range Arena's release, unpacked once under ``root``.

    Raises what ``download`` raises, and InfrastructureError if the archive has no such folder.
    """
    folder = root / "downloads" / "lra_release" / name
    if folder.is_dir():
        return folder
    what = f"{RELEASE.name} (8.2 GB) from storage.googleapis.com"
    archive = download(RELEASE, root, progress, what=what)
    prefix = f"{RELEASE_FOLDERS[0]}/{name}/"
    unfinished = folder.with_name(f".{folder.name}.part")
    with PreparationLock(root / "downloads" / ".lra_release.lock", progress):
        if folder.is_dir():
            return folder
        for path, content in members(archive, lambda n: n.startswith(prefix), progress, 200_000):
            target = (unfinished / path.removeprefix(prefix)).resolve()
            if not target.is_relative_to(unfinished.resolve()):
                raise ConfigError(f"{archive} holds a file outside its folders: {path!r}.")
            make_folder(target.parent)
            target.write_bytes(content)
            inherit_group(target)
        if not unfinished.is_dir():
            raise InfrastructureError(
                f"{archive.name} holds no folder {prefix}.",
                remedy="give a copy of your own with --data DIR",
            )
        unfinished.rename(folder)
    return folder
