"""MAD data: up to six token tasks in one folder, the parts of one benchmark.

``generators.py`` draws the rows. A split has two arrays for each part: ``{part}_inputs`` and
``{part}_targets``. Each part and split has a random stream of its own, so a part's rows do not
depend on which other parts there are. With a hidden key, search and test come from a private seed;
memorization's table is public and the same in all splits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from harness.base.strict import Strict
from tasks.arrays import Arrays, prepare_arrays
from tasks.compose.mad.generators import (
    AskedTokens,
    InputsAndTargets,
    compression,
    fuzzy_recall,
    in_context_recall,
    memorization,
    noisy_recall,
    selective_copying,
)
from tasks.definition import Progress, Value
from tasks.hidden import hidden_key
from tasks.kinds import IGNORED
from tasks.lra.rows import TokenRows
from tasks.prepared import check
from tasks.shared import SPLITS, SUFFIX
from tasks.stream import RandomStream

TASK = "compose/mad"
GENERATOR = "mad-1"
"""Raise the number whenever the same parameters would give other rows."""

PARTS = (
    "in_context_recall",
    "fuzzy_recall",
    "noisy_recall",
    "selective_copying",
    "compression",
    "memorization",
)
"""A part's place in this list seeds its stream; never reorder it."""

Splits = Mapping[str, Mapping[str, NDArray[Any]]]


class MadParameters(Strict):
    """What a profile's ``data`` table must hold; lengths are in tokens.

    ``parts``: names from ``PARTS`` with commas between them. ``train``, ``search`` and ``test`` are
    rows of each part, but memorization has ``memorization_train`` training rows. ``vocabulary`` is
    that of all parts but memorization; noisy recall has ``noise_vocabulary`` ids more. ``length``
    is that of the recall parts. All values must fit one another, even if no part needs them.
    """

    seed: int = Field(ge=0)
    parts: str
    train: int = Field(ge=1)
    memorization_train: int = Field(ge=1)
    search: int = Field(ge=2)
    test: int = Field(ge=2)
    vocabulary: int = Field(ge=4, le=16_384)
    noise_vocabulary: int = Field(ge=1, le=16_383)
    noise: float = Field(ge=0, lt=1)
    length: int = Field(ge=8, le=16_384, multiple_of=2)
    motif: int = Field(ge=1, le=16)
    copying_length: int = Field(ge=4, le=16_384)
    copies: int = Field(ge=1)
    compression_length: int = Field(ge=2, le=16_384)
    memorization_vocabulary: int = Field(ge=5, le=32_767)
    memorization_length: int = Field(ge=2, le=16_384, multiple_of=2)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts, in the order of ``parts``."""
        return tuple(self.parts.split(","))

    @field_validator("parts")
    @classmethod
    def _are_parts(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        wanted = f"write some of {', '.join(PARTS)}, each once, with commas between them"
        for name in names:
            if name not in PARTS:
                raise ValueError(f"{name!r} is no part of MAD; {wanted}")
            if names.count(name) > 1:
                raise ValueError(f"{name!r} stands there twice; {wanted}")
        return ",".join(names)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        needs = (
            ("copying_length", self.copying_length, 2 * self.copies + 2, "copies", self.copies),
            ("length", self.length, 6 * self.motif + 2, "motif", self.motif),
            ("vocabulary", self.vocabulary, 2 * self.motif + 1, "motif", self.motif),
        )
        for name, value, least, because, other in needs:
            if value < least:
                raise ValueError(
                    f"{name} is {value}, but {because} = {other} needs at least {least}: "
                    f"raise {name}, or lower {because}"
                )
        return self


@dataclass(frozen=True)
class MadPart:
    """A part: its number of ids, the width of its rows, and which ids can be asked for.

    ``make`` draws rows from a stream; its last argument says whether they are for training.
    """

    vocabulary: int
    width: int
    answers: range
    make: Callable[[RandomStream, int, bool], InputsAndTargets]


def parts_of(p: MadParameters) -> dict[str, MadPart]:
    """Return the parts that ``p`` names, in its order."""
    ids, m = p.vocabulary, p.memorization_vocabulary
    every = {
        "in_context_recall": MadPart(
            ids,
            p.length - 1,
            range(ids // 2, ids),
            lambda stream, rows, training: in_context_recall(
                stream, rows, ids, p.length, training=training
            ),
        ),
        "fuzzy_recall": MadPart(
            ids,
            p.length,
            range((ids - 1) // 2, ids - 1),
            lambda stream, rows, training: fuzzy_recall(
                stream, rows, ids, p.length, p.motif, training=training
            ),
        ),
        "noisy_recall": MadPart(
            ids + p.noise_vocabulary,
            p.length - 1,
            range(ids // 2, ids),
            lambda stream, rows, training: noisy_recall(
                stream, rows, ids, p.noise_vocabulary, p.noise, p.length, training=training
            ),
        ),
        "selective_copying": MadPart(
            ids,
            p.copying_length,
            range(ids - 2),
            lambda stream, rows, _: selective_copying(
                stream, rows, ids, p.copying_length, p.copies
            ),
        ),
        "compression": MadPart(
            ids,
            p.compression_length,
            range(ids),
            lambda stream, rows, _: compression(stream, rows, ids, p.compression_length),
        ),
        "memorization": MadPart(
            m,
            p.memorization_length,
            range((m - 1) // 2, m - 1),
            lambda stream, rows, _: memorization(stream, rows, m, p.memorization_length),
        ),
    }
    return {name: every[name] for name in p.names}


def generate(
    p: MadParameters, progress: Progress, hidden_seed: int | None = None
) -> dict[str, dict[str, NDArray[Any]]]:
    """Return split → name → array, (rows, width), of the parts that ``p`` names.

    With ``hidden_seed`` search and test are drawn from it, not from ``p.seed``.
    """
    parts = parts_of(p)
    # Memorization first: the manifest counts the rows of a split's last array.
    order = sorted(parts, key=lambda name: name != "memorization")
    splits: dict[str, dict[str, NDArray[Any]]] = {split: {} for split in SPLITS}
    for done, name in enumerate(order):
        progress(f"generating {name.replace('_', ' ')}", done, len(order))
        for at, (split, rows) in enumerate(zip(SPLITS, (p.train, p.search, p.test), strict=True)):
            training = split == "train"
            if training and name == "memorization":
                rows = p.memorization_train
            seed = p.seed if training or hidden_seed is None else hidden_seed
            # From 1 on: numpy takes a seed that ends with zeros for the seed without them.
            stream = RandomStream(seed, 1 + PARTS.index(name), 1 + at)
            inputs, targets = parts[name].make(stream, rows, training)
            splits[split] |= {f"{name}_inputs": inputs, f"{name}_targets": targets}
    progress("generating", len(order), len(order))
    return splits


def baselines(parts: Mapping[str, MadPart], splits: Splits) -> dict[str, float]:
    """Return the accuracy of two guesses without a model: right answers / targets, in [0, 1].

    ``chance.PART`` always answers the commonest training target, of those that can be asked for.
    ``commonest.PART`` answers what has stood in the row most often so far, of the same; in
    compression what stands in the whole row most often, and the last token, which is known.
    Memorization has no such guess, because its inputs show no value. ``chance`` and ``commonest``
    are means over the parts, both with memorization's chance. All are for search, ``…_test`` for
    test.
    """
    found: dict[str, float] = {}
    for split, suffix in SUFFIX.items():
        by_guess: dict[str, list[float]] = {"chance": [], "commonest": []}
        for name, part in parts.items():
            inputs, targets = (splits[split][f"{name}_{what}"] for what in ("inputs", "targets"))
            answer = _most_frequent(splits["train"][f"{name}_targets"], part.answers)
            guesses = {"chance": _accuracy(np.full_like(targets, answer), targets)}
            if name != "memorization":
                guesses["commonest"] = _accuracy(_commonest(name, part, inputs), targets)
            for guess, shares in by_guess.items():
                shares.append(guesses.get(guess, guesses["chance"]))
            found |= {f"{guess}.{name}{suffix}": value for guess, value in guesses.items()}
        found |= {f"{guess}{suffix}": float(np.mean(shares)) for guess, shares in by_guess.items()}
    return {name: round(value, 6) for name, value in found.items()}


def _most_frequent(tokens: NDArray[Any], answers: range) -> int:
    """Return the most frequent token of those in ``answers``; of several, the smallest."""
    counts = np.bincount(tokens[tokens >= 0], minlength=answers.stop)
    return answers.start + int(counts[answers.start : answers.stop].argmax())


def _commonest(name: str, part: MadPart, inputs: TokenRows) -> NDArray[Any]:
    """Return at each position the token of ``part.answers`` that was most frequent so far."""
    row = np.arange(len(inputs))
    counts = np.zeros((len(inputs), part.vocabulary), np.int64)
    found = np.zeros(inputs.shape, np.int64)
    can_be_asked = slice(part.answers.start, part.answers.stop)
    for position in range(part.width):
        counts[row, inputs[:, position]] += 1
        found[:, position] = part.answers.start + counts[:, can_be_asked].argmax(axis=1)
    if name == "compression":  # answered from the last position, where the whole row is known
        found[:, :-1] = found[:, -1:]
        found[:, -1] = inputs[:, -1]
    return found


def _accuracy(answers: NDArray[Any], targets: AskedTokens) -> float:
    return float((answers == targets)[targets != IGNORED].mean())


def prepare(profile: str, data: Mapping[str, Value], root: Path, progress: Progress) -> Path:
    """Return the data folder under ``root``; make it first if it is missing or incomplete.

    Raises ConfigError if ``data`` or the hidden key is wrong or ``root`` cannot be written.
    """
    p = check(MadParameters, TASK, profile, data)
    parts = parts_of(p)
    shape = {f"{name}.vocabulary": part.vocabulary for name, part in parts.items()}
    shape |= {f"{name}.length": part.width for name, part in parts.items()}
    if "compression" in parts:
        shape["compression.from_last"] = 1  # a model answers all positions from the last one
    key = hidden_key(root)

    def make() -> Arrays:
        splits = generate(p, progress, key.seed(TASK, p.seed) if key else None)
        return Arrays(splits, shape, baselines(parts, splits))

    return prepare_arrays(TASK, profile, GENERATOR, p.model_dump(), make, root, progress, key=key)
