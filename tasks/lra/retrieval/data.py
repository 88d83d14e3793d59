"""Retrieval data: does one paper cite the other? Two documents in bytes (AAN in Long Range Arena).

A row is the first document's ids and then the second's, each cut or padded to ``length``. A byte b
has the id b + 1, and 0 is padding. The splits are the release's. The share of hidden pairs with a
document that also occurs in training pairs is measured; ``documents = "disjoint"`` leaves out such
pairs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.base.errors import ConfigError
from harness.base.strict import Strict
from tasks.definition import Progress, Value
from tasks.hidden import HiddenKey, hidden_key
from tasks.lra import sources
from tasks.lra.retrieval import aan, made
from tasks.lra.retrieval.made import DocumentPair
from tasks.lra.rows import (
    DataRows,
    SplitRows,
    by_split,
    check,
    id_type,
    majority,
    prepare_rows,
)
from tasks.shared import HIDDEN, SPLITS

TASK = "lra/retrieval"
GENERATOR = "retrieval-1"
"""Raise the number whenever the same parameters and source would give other rows."""
SOURCE = "lra"
VOCABULARY, CLASSES = 257, 2
PIECE, BUCKETS = 4, 16_384
"""Bytes of a piece of text, and the number of buckets that the baseline hashes pieces into."""
FITTED_ON = 4000
"""Most training pairs that the baseline is fitted on."""
CHUNK = 256

ReadPairs = Callable[[str], tuple[int, Iterable[DocumentPair]]]
"""Split → (about how many pairs, the pairs); called again for each pass over them."""


class RetrievalParameters(Strict):
    """What a profile's ``data`` table may hold.

    ``source`` is ``generated``, ``lra`` or a folder; ``length`` is in bytes, of each document.
    ``train``, ``search`` and ``test`` are numbers of pairs; from a source they are upper limits.
    ``documents``: ``published`` takes the release's splits as they are; ``disjoint`` leaves out
    training pairs with a document of search or test, and search pairs with a document of test.
    """

    source: str
    seed: int = Field(ge=0)
    length: int = Field(ge=32, le=16_384)
    documents: Literal["published", "disjoint"] = "published"
    train: int = Field(ge=1)
    search: int = Field(ge=1)
    test: int = Field(ge=1)


def prepare(profile: str, data: Mapping[str, Value], root: Path, progress: Progress) -> Path:
    """Return the data folder under ``root``; make it first if it is missing or incomplete.

    Raises ConfigError if ``data`` or the source is wrong or ``root`` cannot be written,
    InfrastructureError if a download fails.
    """
    p = check(RetrievalParameters, TASK, profile, data)
    identity = ""
    generated = p.source == sources.GENERATED
    key: HiddenKey | None = hidden_key(root) if generated else None
    hidden_seed = key.seed(TASK, p.seed) if key else None
    reader: Callable[[], ReadPairs] = lambda: partial(_made, p, hidden_seed)  # noqa: E731
    if p.source == SOURCE:
        reader = lambda: partial(_stored, aan.find(sources.release(aan.FOLDER, root, progress)))  # noqa: E731
    elif not generated:
        folder = sources.folder_of(p.source)
        p = p.model_copy(update={"source": str(folder)})
        paths = aan.find(folder)
        identity, reader = sources.identity(paths.values()), lambda: partial(_stored, paths)
    return prepare_rows(
        TASK,
        profile,
        GENERATOR,
        p,
        lambda: _rows(p, reader(), progress),
        root,
        progress,
        identity=identity,
        key=key,
    )


def _made(
    p: RetrievalParameters, hidden_seed: int | None, split: str
) -> tuple[int, Iterable[DocumentPair]]:
    count = getattr(p, split)
    drawn_from = hidden_seed if split in HIDDEN else None
    return count, made.pairs(p.seed, count, p.length, split, drawn_from=drawn_from)


def _stored(paths: Mapping[str, Path], split: str) -> tuple[int, Iterable[DocumentPair]]:
    return aan.count(paths[split]), aan.read(paths[split])


def _rows(p: RetrievalParameters, read: ReadPairs, progress: Progress) -> DataRows:
    progress("looking for shared documents", 0, 1)
    named = {split: {d for q in read(split)[1] for d in (q.first, q.second)} for split in SPLITS}
    without: dict[str, set[str]] = {split: set() for split in SPLITS}
    if p.documents == "disjoint":
        without = {"train": named["search"] | named["test"], "search": named["test"], "test": set()}
    kept = {split: _encode(p, split, read, without[split], progress) for split in SPLITS}
    known = kept["train"].documents
    facts: dict[str, Value] = {
        f"pairs_with_training_documents_{split}": round(kept[split].share_with(known), 6)
        for split in ("search", "test")
    }
    splits = {split: found.rows for split, found in kept.items()}
    progress("comparing pieces of text", 0, 1)
    shape = {"length": p.length, "vocabulary": VOCABULARY, "classes": CLASSES, "documents": 2}
    return DataRows(splits, shape, {**majority(splits, CLASSES), **shared_pieces(splits)}, facts)


@dataclass(frozen=True)
class Kept:
    """The rows of one split, and the names of their documents."""

    rows: SplitRows
    pairs: list[tuple[str, str]]

    @property
    def documents(self) -> set[str]:
        return {name for pair in self.pairs for name in pair}

    def share_with(self, known: set[str]) -> float:
        """Return the share of the pairs that have a document in ``known``."""
        return sum(a in known or b in known for a, b in self.pairs) / len(self.pairs)


def _encode(
    p: RetrievalParameters, split: str, read: ReadPairs, without: set[str], progress: Progress
) -> Kept:
    there, pairs = read(split)
    count = min(there, int(getattr(p, split)))
    tokens = np.zeros((count, 2, p.length), id_type(VOCABULARY))
    labels = np.zeros(count, np.uint8)
    names: list[tuple[str, str]] = []
    for pair in pairs:
        if len(names) == count:
            break
        if pair.first in without or pair.second in without:
            continue
        for row, text in zip(tokens[len(names)], pair.texts, strict=True):
            ids = np.frombuffer(text[: p.length], np.uint8)
            row[: len(ids)] = ids.astype(row.dtype) + 1
        labels[len(names)] = pair.label
        names.append((pair.first, pair.second))
        if len(names) % 1000 == 0:
            progress(f"encoding pairs of {split}", len(names), count)
    if not names:
        raise ConfigError(
            f"{TASK} has no pairs of {split}.",
            cause=f"documents are {p.documents}, and {there:,} pairs were read",
            remedy="give the whole release, or ask for more rows",
        )
    kept = len(names)
    return Kept((tokens[:kept].reshape(kept, 2 * p.length), labels[:kept]), names)


def shared_pieces(splits: Mapping[str, SplitRows]) -> dict[str, float]:
    """Return the accuracy of a threshold, fitted on training, on the cosine of rare text pieces."""
    tokens, labels = splits["train"][0][:FITTED_ON], splits["train"][1][:FITTED_ON]
    seen = sum((_pieces(chunk).sum(axis=(0, 1)) for chunk in _chunks(tokens)), np.zeros(BUCKETS))
    rarity = np.log((1 + 2 * len(tokens)) / (1 + seen)).astype(np.float32)
    similar = _similarity(tokens, rarity)
    # The best threshold between two neighbours of the sorted similarities.
    order = similar.argsort(kind="stable")
    right = np.cumsum(labels[order] == 0) + (labels == 1).sum() - np.cumsum(labels[order] == 1)
    threshold = similar[order[right.argmax()]]
    return by_split("shared_pieces", splits, lambda rows: _similarity(rows, rarity) > threshold)


def _chunks(tokens: NDArray[np.int16]) -> Iterable[NDArray[np.int16]]:
    return (tokens[i : i + CHUNK] for i in range(0, len(tokens), CHUNK))


def _pieces(tokens: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Return which buckets each of two documents has a piece in, (rows, 2, BUCKETS)."""
    ids = tokens.reshape(len(tokens) * 2, -1).astype(np.uint32)
    hashed = np.zeros((len(ids), ids.shape[1] - PIECE + 1), np.uint32)
    for at in range(PIECE):
        hashed = hashed * np.uint32(0x01000193) + ids[:, at : at + hashed.shape[1]]
    hashed = (hashed * np.uint32(0x9E3779B1)) >> np.uint32(32 - 14)
    there = np.zeros((len(ids), BUCKETS), bool)
    np.put_along_axis(there, hashed.astype(np.int64), values=True, axis=1)
    there[:, 0] = False  # pieces of padding fall into bucket 0
    return there.reshape(len(tokens), 2, BUCKETS)


def _similarity(tokens: NDArray[np.int16], rarity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine between the two documents of each row, pieces weighed by rarity."""
    found = []
    for chunk in _chunks(tokens):
        a, b = (_pieces(chunk) * rarity).swapaxes(0, 1)
        size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        found.append((a * b).sum(axis=1) / np.maximum(size, 1e-9))
    return np.concatenate(found)
