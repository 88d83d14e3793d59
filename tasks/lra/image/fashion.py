"""Reads Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747, MIT licence): four IDX files.

Debian's package dataset-fashion-mnist has them; so has the project's repository.
"""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from harness.base.errors import ConfigError
from tasks.definition import Progress
from tasks.download import Remote
from tasks.lra import sources
from tasks.stream import Bytes

PACKAGE = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts them."""
_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
FILES = {
    "train-images-idx3-ubyte": (
        26_421_880,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte": (
        29_515,
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte": (
        4_422_102,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte": (
        5_148,
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
"""Name → bytes of the compressed file as published, and SHA-256 of what is in it.

The latter was taken from Debian's package, which compresses the same content anew."""
SIDE, CLASSES = 28, 10
ROWS = (60_000, 60_000, 10_000, 10_000)
WANTED = "it must hold the four IDX files, e.g. train-images-idx3-ubyte.gz, compressed or not"


def files(folder: Path) -> list[Path]:
    """Return the four files in a folder. Raises ConfigError."""
    return [
        sources.first_that_is(folder, (f"{name}.gz", name), f"Fashion-MNIST's {name}", WANTED)
        for name in FILES
    ]


def read(paths: list[Path], progress: Progress) -> tuple[Bytes, Bytes]:
    """Return all 70,000 images, padded to (n, 32, 32), and labels; the last 10,000 are the test.

    Raises ConfigError naming a bad file.
    """
    progress("reading Fashion-MNIST", 0, 1)
    arrays = [_array(path, rows) for path, rows in zip(paths, ROWS, strict=True)]
    images = np.concatenate((arrays[0], arrays[2])).reshape(-1, SIDE, SIDE)
    labels = np.concatenate((arrays[1], arrays[3])).reshape(-1)
    if labels.max() >= CLASSES:
        raise ConfigError(f"{paths[1]} holds a label {labels.max()}; there are {CLASSES} classes.")
    return np.pad(images, ((0, 0), (2, 2), (2, 2))), labels


def remotes() -> list[Remote]:
    """Return where the published files are."""
    return [
        Remote(f"{_URL}/{name}.gz", f"{name}.gz", size=size, damage=_damage)
        for name, (size, _) in FILES.items()
    ]


def _damage(path: Path) -> str:
    """Return why a downloaded file is not the published one, or ""."""
    try:
        found = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        return str(error)
    wanted = FILES[path.name.partition(".")[0]][1]
    return "" if found == wanted else f"the SHA-256 of its content is {found}, not {wanted}"


def _array(path: Path, rows: int) -> Bytes:
    images = "images" in path.name
    width = SIDE * SIDE if images else 1
    head = np.array([0x803, rows, SIDE, SIDE] if images else [0x801, rows], ">u4").tobytes()
    with sources.naming(path):
        try:
            content = path.read_bytes()
            if path.suffix == ".gz":
                content = gzip.decompress(content)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if len(content) != len(head) + rows * width or not content.startswith(head):
            raise ValueError(f"it is no IDX file of {rows:,} x {width}")
    return np.frombuffer(content, np.uint8, offset=len(head)).reshape(rows, width)
