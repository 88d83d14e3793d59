"""Image data: grey images read pixel by pixel, one of ten classes (CIFAR-10 in Long Range Arena).

The last tenth of the training images, in the order of the files, is the search split; the test
split is the published one. No augmentation. ``lra/image-fashion`` is the stand-in where CIFAR-10
cannot be had: the same with Fashion-MNIST.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from harness.base.strict import Strict
from tasks.definition import Progress, Value
from tasks.download import fetch
from tasks.hidden import HiddenKey, hidden_key
from tasks.lra import sources
from tasks.lra.image import cifar, fashion, made
from tasks.lra.pixels import pixel_rows, shrink
from tasks.lra.rows import DataRows, check, prepare_rows
from tasks.prepared import PreparationLock
from tasks.shared import SPLITS
from tasks.stream import Bytes

GENERATOR = "image-1"
"""Raise the number whenever the same parameters and source would give other rows."""
CLASSES = 10
TEST_ROWS = 10_000
"""Of both sources: the last rows are the published test images."""

ReadImages = Callable[[], tuple[Bytes, Bytes]]


class ImageParameters(Strict):
    """What a profile's ``data`` table may hold.

    ``source`` is ``generated``, the published source's name, or a folder. ``side`` is in pixels;
    smaller images are means of blocks. ``train``, ``search`` and ``test`` count rows: what is made,
    or of a source at most, taken from the front of each part.
    """

    source: str
    seed: int = Field(ge=0)
    side: int
    train: int = Field(ge=1)
    search: int = Field(ge=1)
    test: int = Field(ge=1)

    @field_validator("side")
    @classmethod
    def _divides(cls, side: int) -> int:
        if side not in (8, 16, 32):
            raise ValueError("a side has 8, 16 or 32 pixels")
        return side


@dataclass(frozen=True)
class ImageSource:
    """Published images of a task. ``fetch`` downloads them, ``files`` finds a copy in a folder."""

    task: str
    name: str
    fetch: Callable[[Path, Progress], list[Path]]
    files: Callable[[Path], list[Path]]
    read: Callable[[list[Path], Progress], tuple[Bytes, Bytes]]


def _fetch_cifar(root: Path, progress: Progress) -> list[Path]:
    return [sources.download(cifar.ARCHIVE, root, progress)]


def _fetch_fashion(root: Path, progress: Progress) -> list[Path]:
    """Return Debian's package where it is installed, else download the published files."""
    if fashion.PACKAGE.is_dir():
        return fashion.files(fashion.PACKAGE)
    with PreparationLock(root / ".fashion-mnist.lock", progress):
        return fetch(fashion.remotes(), root / "downloads", progress)


CIFAR = ImageSource("lra/image", "cifar10", _fetch_cifar, cifar.files, cifar.read)
FASHION = ImageSource(
    "lra/image-fashion", "fashion-mnist", _fetch_fashion, fashion.files, fashion.read
)


def prepare_from(
    source: ImageSource, profile: str, data: Mapping[str, Value], root: Path, progress: Progress
) -> Path:
    """Make the data folder of the source's task under ``root`` if it is not there whole.

    Returns it. Raises ConfigError if ``data`` or the source is wrong or ``root`` cannot be
    written, InfrastructureError if a download fails.
    """
    p = check(ImageParameters, source.task, profile, data)
    identity = ""
    key: HiddenKey | None = None
    if p.source == sources.GENERATED:
        key = hidden_key(root)
        read: ReadImages = partial(_gratings, p, key.seed(source.task, p.seed) if key else None)
    elif p.source == source.name:

        def read() -> tuple[Bytes, Bytes]:
            return source.read(source.fetch(root, progress), progress)
    else:
        folder = sources.folder_of(p.source)
        p = p.model_copy(update={"source": str(folder)})
        paths = source.files(folder)
        identity, read = sources.identity(paths), partial(source.read, paths, progress)

    def make() -> DataRows:
        return _rows(p, *read())

    return prepare_rows(
        source.task, profile, GENERATOR, p, make, root, progress, identity=identity, key=key
    )


prepare = partial(prepare_from, CIFAR)
prepare_fashion = partial(prepare_from, FASHION)


def _gratings(p: ImageParameters, hidden_seed: int | None) -> tuple[Bytes, Bytes]:
    hidden = p.search + p.test
    images, labels = made.gratings(p.seed, p.train + hidden, p.side)
    if hidden_seed is not None:
        images[p.train :], labels[p.train :] = made.gratings(hidden_seed, hidden, p.side)
    return images, labels


def _rows(p: ImageParameters, images: Bytes, labels: Bytes) -> DataRows:
    """Split by order: what is made as it was asked for, a source as it is published."""
    made_up = p.source == sources.GENERATED
    test = p.test if made_up else TEST_ROWS
    search = p.search if made_up else (len(labels) - test) // 10
    ends = np.cumsum((len(labels) - search - test, search, test))
    parts = {}
    for split, start, end in zip(SPLITS, (0, *ends[:-1]), ends, strict=True):
        taken = slice(start, min(end, start + int(getattr(p, split))))
        parts[split] = (shrink(images[taken], p.side), labels[taken])
    return pixel_rows(parts, CLASSES, {})
