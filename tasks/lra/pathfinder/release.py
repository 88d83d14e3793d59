"""Reads Pathfinder images, from Long Range Arena's release or as the public generator writes them.

A set is ``imgs/<batch>/sample_<n>.png`` and ``metadata/<batch>.npy``. Despite its name, the latter
is plain text in the release; from the generator it is an array of strings. Field 3 of a line,
counted from 0, is the label.
"""

import re
from pathlib import Path

import numpy as np

from harness.base.errors import ConfigError
from tasks.definition import Progress
from tasks.lra import sources
from tasks.stream import Bytes

SET = "curv_contour_length_14"
"""The hard set: what Long Range Arena uses for Pathfinder and Path-X (its issue 11)."""
WANTED = "it must hold pathfinder{side}/" + SET + " with the folders imgs and metadata"


def find(folder: Path, side: int) -> Path:
    """Return the folder below ``folder`` with the images of ``side`` pixels. Raises ConfigError."""
    inside = [f"{place}/pathfinder{side}/{SET}" for place in sources.RELEASE_FOLDERS]
    inside += (
        [SET, f"{folder}"] if (folder / SET).is_dir() or (folder / "metadata").is_dir() else []
    )
    wanted = WANTED.replace("{side}", str(side))
    found = sources.first_that_is(folder, inside, f"Pathfinder's images of {side} px", wanted)
    for name in ("imgs", "metadata"):
        if not (found / name).is_dir():
            raise ConfigError(f"{found} has no folder {name}.", remedy=wanted)
    return found


def files(folder: Path) -> list[Path]:
    """Return the metadata files of a set, in the order of their numbers. Raises ConfigError."""
    found = [path for path in (folder / "metadata").iterdir() if path.suffix == ".npy"]
    if not found:
        raise ConfigError(f"{folder / 'metadata'} holds no .npy file.")
    return sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.stem)])


def read(folder: Path, side: int, progress: Progress) -> tuple[Bytes, Bytes, int]:
    """Return images (n, side, side) and labels in stored order, and how many files were empty.

    Raises ConfigError naming a bad file.
    """
    listed = [entry for path in files(folder) for entry in _metadata(path)]
    images = np.zeros((len(listed), side, side), np.uint8)
    labels = np.zeros(len(listed), np.uint8)
    home = folder.resolve()
    done = empty = 0
    for number, (name, label) in enumerate(listed):
        if number % 1000 == 0:
            progress("reading images", number, len(listed))
        path = folder / name
        if not path.resolve().is_relative_to(home):
            raise ConfigError(f"{folder}/metadata names a file outside its folder: {name!r}.")
        with sources.naming(path):
            size = path.stat().st_size
        if size == 0:  # the release has such files; Long Range Arena skips them, too
            empty += 1
            continue
        images[done], labels[done] = _image(path, side), label
        done += 1
    if not done:
        raise ConfigError(f"{folder} holds no image.")
    return images[:done], labels[:done], empty


def _metadata(path: Path) -> list[tuple[str, int]]:
    """Return (file below the set, label) of each line."""
    with sources.naming(path):
        content = path.read_bytes()
        if content.startswith(b"\x93NUMPY"):
            lines = [[str(field) for field in row] for row in np.load(path, allow_pickle=False)]
        else:
            lines = [line.split() for line in content.decode().splitlines() if line.strip()]
    found = []
    for number, fields in enumerate(lines, start=1):
        if len(fields) < 4 or fields[3] not in ("0", "1"):
            raise ConfigError(
                f"{path}, line {number}, is no metadata of Pathfinder.",
                cause=f"it says {' '.join(fields)[:80]!r}",
                remedy="a line is: folder, file, index, label 0 or 1, and more",
            )
        found.append((f"{fields[0]}/{fields[1]}", int(fields[3])))
    return found


def _image(path: Path, side: int) -> Bytes:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ConfigError(
            "Reading Pathfinder's PNG files needs Pillow, which is not installed.",
            remedy="pip install 'aira-harness[data]'",
        ) from error
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.size != (side, side):
                raise ConfigError(
                    f"{path} has {image.size[0]} x {image.size[1]} pixels, not {side} x {side}."
                )
            return np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise ConfigError(
            f"{path} is no readable PNG file.", cause=str(error), remedy="replace it by a whole one"
        ) from error
