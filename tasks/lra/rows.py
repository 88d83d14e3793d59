"""What the prepared data of all LRA tasks have in common: rows of token ids, and their labels.

A split is ``tokens.npy`` (rows, width) and ``labels.npy`` (rows,). Ids are uint8 where the
vocabulary allows it, else int16; they keep this type on a GPU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.base.strict import Strict
from tasks.arrays import Arrays, prepare_arrays, source_state
from tasks.definition import Manifest, Progress, Value
from tasks.hidden import HiddenKey
from tasks.prepared import check as check
from tasks.shared import SPLITS, SUFFIX

TokenRows = NDArray[Any]
Labels = NDArray[np.uint8]
SplitRows = tuple[TokenRows, Labels]


@dataclass(frozen=True)
class DataRows:
    """What a data set is written from.

    ``shape`` holds length, vocabulary and classes; ``documents`` = 2 says that a row is two
    documents of that length, one after the other; ``padded`` = 0 says that no id means padding.
    ``facts`` are worth knowing about the source, ``baselines`` are scores of simple guesses.
    """

    splits: Mapping[str, SplitRows]
    shape: Mapping[str, int]
    baselines: Mapping[str, float]
    facts: Mapping[str, Value] = field(default_factory=dict)


def id_type(vocabulary: int) -> type[np.uint8] | type[np.int16]:
    """Return the smallest type that holds every id and that torch can compute with."""
    return np.uint8 if vocabulary <= 256 else np.int16


def prepare_rows(
    task: str,
    profile: str,
    generator: str,
    parameters: Strict,
    make: Callable[[], DataRows],
    root: Path,
    progress: Progress,
    *,
    identity: str = "",
    key: HiddenKey | None = None,
) -> Path:
    """Return the data folder under ``root``; if it is missing or incomplete, write ``make``'s rows.

    ``identity`` changes when the source's content may have changed; with ``key`` the rows of search
    and test are drawn. Raises ConfigError where ``root`` cannot be written, and what ``make``
    raises.
    """
    return prepare_arrays(
        task,
        profile,
        generator,
        parameters.model_dump(),
        lambda: _arrays(make()),
        root,
        progress,
        key=key,
        state=source_state(generator, parameters, identity, key),
        look=_shapes_fault,
    )


def _shapes_fault(folder: Path, manifest: Manifest) -> str:
    width = manifest.shape["length"] * manifest.shape.get("documents", 1)
    kinds = {"tokens": id_type(manifest.shape["vocabulary"]), "labels": np.uint8}
    for split in SPLITS:
        count = manifest.rows[split]
        shapes = {"tokens": (count, width), "labels": (count,)}
        for what, shape in shapes.items():
            array = np.load(folder / split / f"{what}.npy", mmap_mode="r")
            if array.shape != shape or array.dtype != kinds[what]:
                return f"{split}/{what}.npy has a wrong shape"
    return ""


def _arrays(rows: DataRows) -> Arrays:
    chance = round(1 / rows.shape["classes"], 6)
    return Arrays(
        {
            split: {"tokens": tokens, "labels": labels}
            for split, (tokens, labels) in rows.splits.items()
        },
        rows.shape,
        {"chance": chance, "chance_test": chance, **rows.baselines},
        rows.facts,
    )


def majority(splits: Mapping[str, SplitRows], classes: int) -> dict[str, float]:
    """Return search and test accuracy of always predicting the most common training label."""
    commonest = int(np.bincount(splits["train"][1], minlength=classes).argmax())
    return by_split("majority", splits, lambda tokens: np.full(len(tokens), commonest))


def by_split(
    name: str, splits: Mapping[str, SplitRows], guess: Callable[[TokenRows], NDArray[Any]]
) -> dict[str, float]:
    """Return the accuracy of a guess on search (``name``) and on test (``name_test``)."""
    found = {}
    for split, suffix in SUFFIX.items():
        tokens, labels = splits[split]
        found[f"{name}{suffix}"] = round(float((guess(tokens) == labels).mean()), 6)
    return found
