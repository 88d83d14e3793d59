"""What the language-modelling proxies have in common: rows of tokens, each asked for its next.

A split has one part, the arrays ``{part}_inputs`` and ``{part}_targets``: a row without its last
token, and without its first. Every target is asked.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from harness.base.errors import ConfigError
from tasks.arrays import Arrays
from tasks.autoresearch import reference
from tasks.definition import Progress, Value
from tasks.shared import HIDDEN, SUFFIX

TokenIds = NDArray[Any]
"""Token ids of any integer type."""

GIVEN = "given"
"""The source of a task whose data only the user can give."""
BUNDLED = "bundled"
"""The source of a task that comes with its data."""


def _whole(source: str) -> str:
    return source if source in (GIVEN, BUNDLED) else str(Path(source).expanduser().resolve())


Source = Annotated[str, AfterValidator(_whole)]
"""``bundled``, ``given`` (by the user, later), or a folder, whose path is made whole."""

COUNTED = 20_000_000
"""The n-grams are counted on about so many training tokens at most."""


def id_dtype(vocabulary: int) -> type[np.int16] | type[np.int32]:
    """Return the smallest of two types that holds the ids."""
    return np.int16 if vocabulary <= np.iinfo(np.int16).max else np.int32


def language_arrays(
    part: str,
    rows: Mapping[str, TokenIds],
    vocabulary: int,
    bos: int,
    progress: Progress,
    *,
    entropy: Mapping[str, float] | None = None,
    facts: Mapping[str, Value] | None = None,
) -> Arrays:
    """Return the data of rows of ids (rows, length + 1) by split, ids below ``vocabulary``.

    ``bos`` is the id that stands before a document or story. ``entropy`` is the loss of the true
    model by hidden split, in nats a token, where it is known.
    """
    dtype = id_dtype(vocabulary)
    baselines = guesses(rows, vocabulary, bos, progress)
    for split, value in (entropy or {}).items():
        baselines["entropy" + SUFFIX[split]] = value
    return Arrays(
        {
            split: {
                f"{part}_inputs": ids[:, :-1].astype(dtype),
                f"{part}_targets": ids[:, 1:].astype(dtype),
            }
            for split, ids in rows.items()
        },
        {f"{part}.vocabulary": vocabulary, f"{part}.length": rows["train"].shape[1] - 1},
        {name: round(value, 6) for name, value in baselines.items()},
        facts or {},
    )


def folder_given(task: str, source: str, wanted: str) -> Path:
    """Return the folder of the user's that ``source`` names; ``wanted`` says what it must hold.

    Raises ConfigError if there is none, or none was given.
    """
    if source == GIVEN:
        raise ConfigError(
            f"{task} has no data of its own: they come from a folder of yours.",
            remedy=f"--data DIR, a folder {wanted} (docs/reference/compose.md)",
        )
    folder = Path(source)
    if not folder.is_dir():
        raise ConfigError(
            f"There is no folder {folder} to take the data of {task} from.",
            remedy=f"--data DIR, a folder {wanted}",
        )
    return folder


def guesses(
    rows: Mapping[str, TokenIds], vocabulary: int, bos: int, progress: Progress
) -> dict[str, float]:
    """Return the losses, nats a token, of guesses from the last 0, 1 and 3 tokens.

    They are counted on the training rows and smoothed (``tasks.autoresearch.reference``).
    ``uniform`` is that of no knowledge at all. All are for search, ``…_test`` for test.
    """
    found: dict[str, float] = {}
    progress("counting n-grams", 0, 1)
    train = _begun(rows["train"][: COUNTED // rows["train"].shape[1]], bos)
    model = reference.train(train.reshape(-1), vocabulary, bos)
    for split in HIDDEN:
        ids = _begun(rows[split], bos)
        by_order = model.log_probabilities(ids.reshape(-1)).reshape(-1, *ids.shape)
        # The targets: all but the first id of a row.
        nats = -by_order[:, :, 1 - rows[split].shape[1] :].astype(np.float64).mean(axis=(1, 2))
        for name, loss in zip(("unigram", "bigram", "", "ngram"), nats.tolist(), strict=True):
            found |= {name + SUFFIX[split]: loss} if name else {}
        found["uniform" + SUFFIX[split]] = math.log(vocabulary)
    progress("counting n-grams", 1, 1)
    return found


def _begun(rows: TokenIds, bos: int) -> NDArray[np.uint16]:
    """Return the rows, each with ``bos`` first: then nothing before it counts."""
    if not (rows[:, 0] == bos).all():
        rows = np.column_stack([np.full(len(rows), bos), rows])
    return rows.astype(np.uint16)
