"""Text data: movie reviews as bytes, positive or negative (IMDb in Long Range Arena's form).

A byte b has the id b + 1, and 0 is padding. The search split is taken from the published training
half, by a hash of the content, with labels balanced, because Long Range Arena's own validation
split *is* its test split. The test split is the published test half. Rows are in the order of that
hash, so that archive, folders and parquet give the same data.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from math import log
from pathlib import Path

import numpy as np
from pydantic import Field

from harness.base.errors import ConfigError
from harness.base.strict import Strict
from tasks.definition import Progress, Value
from tasks.hidden import HiddenKey, hidden_key
from tasks.lra import sources
from tasks.lra.rows import DataRows, SplitRows, check, id_type, majority, prepare_rows
from tasks.lra.text import imdb, made
from tasks.shared import SPLITS, SUFFIX

TASK = "lra/text"
GENERATOR = "text-1"
"""Raise the number whenever the same parameters and source would give other rows."""
SOURCE = "imdb"
VOCABULARY, CLASSES = 257, 2
_WORD = re.compile(rb"[a-z']+")

Reviews = list[tuple[bytes, int]]


class TextParameters(Strict):
    """What a profile's ``data`` table may hold.

    ``source`` is ``generated``, ``imdb`` or a folder; ``length`` is in bytes. ``train``, ``search``
    and ``test`` are numbers of rows; from a source they are upper limits.
    """

    source: str
    seed: int = Field(ge=0)
    length: int = Field(ge=32, le=16_384)
    train: int = Field(ge=1)
    search: int = Field(ge=1)
    test: int = Field(ge=1)


def prepare(profile: str, data: Mapping[str, Value], root: Path, progress: Progress) -> Path:
    """Return the data folder under ``root``; make it first if it is missing or incomplete.

    Raises ConfigError if ``data`` or the source is wrong or ``root`` cannot be written,
    InfrastructureError if a download fails.
    """
    p = check(TextParameters, TASK, profile, data)
    identity, read = "", partial(_download, root, progress)
    key: HiddenKey | None = None
    hidden_seed: int | None = None
    if p.source == sources.GENERATED:
        key = hidden_key(root)
        hidden_seed = key.seed(TASK, p.seed) if key else None
        read = partial(_generate, p)
    elif p.source != SOURCE:
        folder = sources.folder_of(p.source)
        p = p.model_copy(update={"source": str(folder)})
        paths = imdb.files(folder)
        identity, read = sources.identity(paths), partial(imdb.read, paths, progress)
    return prepare_rows(
        TASK,
        profile,
        GENERATOR,
        p,
        lambda: _rows(p, read(), hidden_seed, progress),
        root,
        progress,
        identity=identity,
        key=key,
    )


def _generate(p: TextParameters) -> dict[str, Reviews]:
    texts = made.reviews(p.seed, p.train + p.search + p.test, p.length)
    return {"train": texts[: p.train + p.search], "test": texts[p.train + p.search :]}


def _download(root: Path, progress: Progress) -> dict[str, Reviews]:
    return imdb.read([sources.download(imdb.ARCHIVE, root, progress)], progress)


def _hidden(p: TextParameters, seed: int, published: dict[str, Reviews]) -> dict[str, Reviews]:
    known = [text for texts in published.values() for text, _ in texts]
    texts = made.reviews(seed, p.search + p.test, p.length, without=known)
    return {"search": texts[: p.search], "test": texts[p.search :]}


def _rows(
    p: TextParameters, halves: dict[str, Reviews], hidden_seed: int | None, progress: Progress
) -> DataRows:
    splits = _split(p, halves)
    if hidden_seed is not None:
        splits |= _hidden(p, hidden_seed, halves)
    progress("counting words", 0, 1)
    baselines = {}
    encoded = {s: encode(texts, p.length) for s, texts in splits.items()}
    guess = word_counts([(t[: p.length], label) for t, label in splits["train"]])
    for split, suffix in SUFFIX.items():
        right = [guess(text[: p.length]) == label for text, label in splits[split]]
        baselines[f"word_counts{suffix}"] = round(sum(right) / len(right), 6)
    cut = [len(text) > p.length for texts in splits.values() for text, _ in texts]
    return DataRows(
        encoded,
        {"length": p.length, "vocabulary": VOCABULARY, "classes": CLASSES},
        {**majority(encoded, CLASSES), **baselines},
        {"reviews_cut": round(sum(cut) / len(cut), 6)},
    )


def _split(p: TextParameters, halves: dict[str, Reviews]) -> dict[str, Reviews]:
    """Return the splits, each in the order of the hashes; no text is in two of them."""
    key = str(p.seed).encode()

    def order(review: tuple[bytes, int]) -> bytes:
        return hashlib.blake2b(review[0], digest_size=16, key=key).digest()

    test = sorted(halves["test"], key=order)[: p.test]
    known = {text for text, _ in halves["test"]}
    rest: Reviews = []
    search: Reviews = []
    left = {0: p.search // 2, 1: p.search - p.search // 2}
    for text, label in sorted(halves["train"], key=order):
        if text in known:  # also in the test half, or already taken above
            continue
        known.add(text)
        if left[label]:
            left[label] -= 1
            search.append((text, label))
        else:
            rest.append((text, label))
    train = rest[: p.train]
    found = {"train": train, "search": search, "test": test}
    for split in SPLITS:
        if not found[split]:
            raise ConfigError(
                f"{p.source} has too few reviews for {TASK}.",
                cause=f"none of {sum(map(len, halves.values())):,} is left for {split}",
                remedy="give all of IMDb, or choose a smaller profile",
            )
    return found


def encode(texts: Reviews, length: int) -> SplitRows:
    """Return the first ``length`` bytes of each text as padded ids, and the labels."""
    tokens = np.zeros((len(texts), length), id_type(VOCABULARY))
    for row, (text, _) in zip(tokens, texts, strict=True):
        ids = np.frombuffer(text[:length], np.uint8)
        row[: len(ids)] = ids.astype(row.dtype) + 1
    return tokens, np.array([label for _, label in texts], np.uint8)


def word_counts(train: Reviews) -> Callable[[bytes], int]:
    """Return a naive Bayes classifier that sees which words occur, but not their order."""
    documents = Counter(label for _, label in train)
    counts: dict[int, Counter[bytes]] = {0: Counter(), 1: Counter()}
    for text, label in train:
        counts[label].update(set(_WORD.findall(text.lower())))
    prior = log(max(1, documents[1]) / max(1, documents[0]))
    weights = {
        word: log(
            (counts[1][word] + 1) / (documents[1] + 2) * (documents[0] + 2) / (counts[0][word] + 1)
        )
        for word in counts[0] | counts[1]
    }

    def guess(text: bytes) -> int:
        words = set(_WORD.findall(text.lower()))
        return int(prior + sum(weights.get(word, 0.0) for word in words) > 0)

    return guess
