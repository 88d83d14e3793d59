"""Pathfinder and Path-X data: do two discs stand on the ends of one dashed contour?

``lra/pathfinder`` and ``lra/pathx`` are Long Range Arena's release, its hard sets of 32 and 128
pixels, split 80/10/10 in stored order. ``lra/pathfinder-gen`` and ``lra/pathx-gen`` are stand-ins
that ``snakes`` draws. In the profiles test and smoke, all four tasks use drawn images.
"""

import os
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from harness.base.errors import ConfigError, InfrastructureError
from harness.base.strict import Strict
from tasks.definition import Progress, Value
from tasks.hidden import hidden_key
from tasks.lra import sources
from tasks.lra.pathfinder import release, snakes
from tasks.lra.pixels import pixel_rows
from tasks.lra.rows import DataRows, check, prepare_rows
from tasks.shared import SPLITS
from tasks.stream import Bytes, RandomStream

GENERATOR = "pathfinder-2"
"""Raise the number whenever the same parameters and source would give other rows."""
CLASSES = 2
PIXELS_FOR_MORE_PROCESSES = 20_000_000
"""From this many pixels on, drawing takes much longer than starting a process for each core."""
RELEASED = "lra"


EASY_16 = snakes.ImageStyle(
    side=16, paddles=4, distractors=1, distractor_paddles=2, paddle_length=2.0, thickness=0.7,
    margin=1.0, seed_distance=6.0, continuity=1.5, marker_radius=1.2, snake_contrast=2.0,
    marker_contrast=0.75,
)  # fmt: skip
HARD_32 = snakes.ImageStyle(
    side=32, paddles=14, distractors=5, distractor_paddles=4, paddle_length=2.0, thickness=0.5,
    margin=1.0, seed_distance=7.0, continuity=1.0, marker_radius=1.5, snake_contrast=2.0,
    marker_contrast=0.75,
)  # fmt: skip
HARD_128 = snakes.ImageStyle(
    side=128, paddles=14, distractors=7, distractor_paddles=4, paddle_length=5.0, thickness=1.5,
    margin=2.5, seed_distance=20.0, continuity=1.8, marker_radius=3.0, snake_contrast=0.9,
    marker_contrast=1.0, antialias=2, cells=1,
)  # fmt: skip
STYLES = {"easy16": EASY_16, "hard32": HARD_32, "hard128": HARD_128}
"""The hard styles have the parameters of LRA's hard sets; see docs/reference/tasks.md."""


class PathfinderParameters(Strict):
    """What a profile's ``data`` table may hold.

    ``source`` is ``generated``, ``lra`` or a folder. ``style`` says how images are drawn; its side
    is also the size of the images that are read. ``train``, ``search`` and ``test`` are numbers of
    rows; from a release or a folder they are upper limits.
    """

    source: str = sources.GENERATED
    style: Literal["easy16", "hard32", "hard128"]
    seed: int = Field(ge=0)
    train: int = Field(ge=1)
    search: int = Field(ge=1)
    test: int = Field(ge=1)


def prepare_as(
    task: str, profile: str, data: Mapping[str, Value], root: Path, progress: Progress
) -> Path:
    """Return the data folder of ``task`` under ``root``; make it if it is missing or incomplete.

    Raises ConfigError if ``data`` or the source is wrong or ``root`` cannot be written,
    InfrastructureError if a download fails.
    """
    p = check(PathfinderParameters, task, profile, data)
    style = STYLES[p.style]
    if p.source == sources.GENERATED:
        key = hidden_key(root)
        hidden_seed = key.seed(task, p.seed) if key else None

        def drawn() -> DataRows:
            return _generated(p, style, hidden_seed, progress)

        return prepare_rows(task, profile, GENERATOR, p, drawn, root, progress, key=key)
    identity = ""
    folder: Path | None = None
    if p.source != RELEASED:
        folder = release.find(sources.folder_of(p.source), style.side)
        p = p.model_copy(update={"source": str(folder)})
        identity = sources.identity(release.files(folder))

    def make() -> DataRows:
        place = folder
        if place is None:
            name = f"pathfinder{style.side}/{release.SET}"
            place = sources.release(name, root, progress)
        return _released(p, place, style.side, progress)

    return prepare_rows(task, profile, GENERATOR, p, make, root, progress, identity=identity)


prepare = partial(prepare_as, "lra/pathfinder")


def _generated(
    p: PathfinderParameters, style: snakes.ImageStyle, hidden_seed: int | None, progress: Progress
) -> DataRows:
    hidden = p.search + p.test
    images, labels = _drawn(style, p.seed, p.train + hidden, progress)
    if hidden_seed is not None:
        images[p.train :], labels[p.train :] = _drawn(style, hidden_seed, hidden, progress)
    ends = np.cumsum((p.train, p.search))
    parts = zip(SPLITS, np.split(images, ends), np.split(labels, ends), strict=True)
    return pixel_rows({split: (part, of) for split, part, of in parts}, CLASSES, {})


def _drawn(
    style: snakes.ImageStyle, seed: int, total: int, progress: Progress
) -> tuple[Bytes, Bytes]:
    """Return ``total`` images (total, side, side) and their labels."""
    images = np.zeros((total, style.side, style.side), np.uint8)
    labels = np.zeros(total, np.uint8)
    done = 0
    many = total * style.side**2 >= PIXELS_FOR_MORE_PROCESSES
    workers = len(os.sched_getaffinity(0)) if many else 1
    try:
        with closing(snakes.images(style, seed, workers)) as batches:
            for new_images, new_labels in batches:
                count = min(len(new_labels), total - done)
                images[done : done + count] = new_images[:count]
                labels[done : done + count] = new_labels[:count]
                done += count
                progress("drawing images", done, total)
                if done == total:
                    break
    except BrokenExecutor as error:
        raise InfrastructureError(
            "A process that drew images went away.",
            cause="the machine may have run out of memory",
            remedy="run the same command again",
        ) from error
    # Images come in pairs, one of each label.
    order = RandomStream(seed, 1).order(total)
    return images[order], labels[order]


def _released(p: PathfinderParameters, folder: Path, side: int, progress: Progress) -> DataRows:
    images, labels, empty = release.read(folder, side, progress)
    ends = [0, len(labels) * 8 // 10, len(labels) * 9 // 10, len(labels)]
    parts = {}
    for split, start, end in zip(("train", "search", "test"), ends[:-1], ends[1:], strict=True):
        taken = slice(start, min(end, start + int(getattr(p, split))))
        parts[split] = (images[taken], labels[taken])
        if not len(parts[split][1]):
            raise ConfigError(f"{folder} has too few images.", cause=f"{len(labels):,} in all")
    return pixel_rows(parts, CLASSES, {"empty_files": empty})
