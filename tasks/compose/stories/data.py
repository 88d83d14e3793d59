"""Stories of a grammar of our own, one part of language modelling: ``grammar`` has the stories.

Search and test rows come from a private seed where there is a hidden key. The manifest says the
entropy of both splits: the mean nats of their tokens under the grammar, which is the loss of the
true model on these very rows, and not an estimate.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import Field

from harness.base.strict import Strict
from tasks.arrays import Arrays, prepare_arrays
from tasks.compose.language import TokenIds, language_arrays
from tasks.compose.stories import words
from tasks.compose.stories.grammar import Lexicon, draw, uniform
from tasks.definition import Progress, Value
from tasks.hidden import hidden_key
from tasks.prepared import check
from tasks.shared import HIDDEN, SPLITS
from tasks.stream import RandomStream

TASK, PART = "compose/stories", "stories"
GENERATOR = "stories-1"
"""Raise the number whenever the same parameters would give other rows."""
ROWS_AT_ONCE = 256


class StoriesParameters(Strict):
    """What a profile's ``data`` table must hold.

    ``names``, ``places``, ``looks`` and ``things`` are how many words of each list there are.
    ``length`` is in tokens; ``train``, ``search`` and ``test`` are rows.
    """

    seed: int = Field(ge=0)
    names: int = Field(ge=3, le=len(words.NAMES))
    places: int = Field(ge=2, le=len(words.PLACES))
    looks: int = Field(ge=1, le=len(words.LOOKS))
    things: int = Field(ge=3, le=len(words.THINGS))
    length: int = Field(ge=8, le=16_384)
    train: int = Field(ge=1)
    search: int = Field(ge=2)
    test: int = Field(ge=2)


def generate(
    p: StoriesParameters, progress: Progress, hidden_seed: int | None = None
) -> tuple[dict[str, TokenIds], dict[str, float]]:
    """Return rows of ids (rows, length + 1) by split, and the entropy of the hidden splits.

    With ``hidden_seed`` search and test are drawn from it, not from ``p.seed``.
    """
    lexicon = Lexicon.of(p.names, p.places, p.looks, p.things)
    rows: dict[str, TokenIds] = {}
    entropy: dict[str, float] = {}
    counts = (p.train, p.search, p.test)
    done, total = 0, sum(counts)
    for at, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        seed = p.seed if split == "train" or hidden_seed is None else hidden_seed
        numbers = uniform(RandomStream(seed, 1 + at))
        pieces = []
        for first in range(0, count, ROWS_AT_ONCE):
            progress("telling stories, rows", done, total)
            size = min(ROWS_AT_ONCE, count - first)
            pieces.append(draw(numbers, lexicon, size, p.length))
            done += size
        rows[split] = np.concatenate([ids for ids, _ in pieces])
        if split in HIDDEN:
            entropy[split] = float(np.concatenate([nats for _, nats in pieces]).mean())
    progress("telling stories, rows", done, total)
    return rows, entropy


def prepare(profile: str, data: Mapping[str, Value], root: Path, progress: Progress) -> Path:
    """Return the data folder under ``root``; make it first if it is missing or incomplete.

    Raises ConfigError if ``data`` or the hidden key is wrong or ``root`` cannot be written.
    """
    p = check(StoriesParameters, TASK, profile, data)
    key = hidden_key(root)

    def make() -> Arrays:
        rows, entropy = generate(p, progress, key.seed(TASK, p.seed) if key else None)
        vocabulary = len(Lexicon.of(p.names, p.places, p.looks, p.things).vocabulary)
        return language_arrays(PART, rows, vocabulary, 0, progress, entropy=entropy)

    return prepare_arrays(TASK, profile, GENERATOR, p.model_dump(), make, root, progress, key=key)
