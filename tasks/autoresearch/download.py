"""Shards of the public climbmix dataset: their names, their address, and what makes one valid.

``tasks.download`` does the download itself; ``sources`` decides which shards are used for what.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from tasks import download
from tasks.definition import Progress

DATASET = "datasets/karpathy/climbmix-400b-shuffle/resolve/main"
"""The dataset of the public task (karpathy/autoresearch, prepare.py, commit 228791f)."""

LAST_SHARD = 6542
"""Shards are numbered from 0. The last one is the public task's validation shard."""


def address() -> str:
    """Return where the shards are. ``$HF_ENDPOINT`` names a mirror of Hugging Face."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/") + "/" + DATASET


def shard_name(number: int) -> str:
    """Return the file name of shard ``number``."""
    return f"shard_{number:05d}.parquet"


def fetch(
    numbers: Sequence[int], folder: Path, progress: Progress, *, first_wait_s: float = 1.0
) -> list[Path]:
    """Return the paths of the shards, in that order, after downloading those that are missing.

    Raises what ``tasks.download.fetch`` does.
    """
    names = [shard_name(number) for number in numbers]
    return download.fetch(
        [download.Remote(f"{address()}/{name}", name, damage=damage) for name in names],
        folder,
        progress,
        what=f"{len(names)} shards",
        remedy="check $HF_ENDPOINT, or give a folder of your own with --data DIR",
        first_wait_s=first_wait_s,
    )


def damage(path: Path) -> str:
    """Return why ``path`` is not a readable parquet file with a column ``text``, or "" if it is."""
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        with pq.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                return f"it has no column 'text', only {', '.join(file.schema_arrow.names)}"
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        return str(error)
    return ""
