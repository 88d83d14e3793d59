"""BabiStories as language modelling, from files of the user's in the form of Memory Mosaics.

``train.bin`` and ``val.bin`` are streams of GPT-2's ids, uint16 (Memory Mosaics, arXiv 2405.06394;
facebookresearch/MemoryMosaics, BabiStories). A row is a block of the stream, with the token after
it. Test rows are blocks of ``val.bin``; search rows are from the last blocks of ``train.bin``, as
many as ``val.bin`` has or half of them, whose others are for training. Which blocks are search and
test rows is decided by the hidden key.

A model of a million weights would spend twelve million more on GPT-2's 50,257 ids. So only the
commonest of the training rows keep an id of their own, and all others are one token, "other".
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.base.errors import ConfigError
from harness.base.strict import Strict
from tasks.arrays import Arrays, prepare_arrays, source_state
from tasks.compose.language import Source, TokenIds, folder_given, language_arrays
from tasks.definition import Progress, Value
from tasks.hidden import hidden_key
from tasks.lra.sources import identity, naming
from tasks.prepared import check
from tasks.stream import RandomStream

TASK, PART = "compose/babistories", "babistories"
GENERATOR = "compose-babistories-1"
"""Raise the number whenever the same parameters and files would give other rows."""
FILES = ("train.bin", "val.bin")
WANTED = "with Memory Mosaics' train.bin and val.bin"
GPT2, END_OF_TEXT = 50_257, 50_256
"""The number of GPT-2's ids, and the last of them, which ends a story. Here its id is 0."""


class BabiStoriesParameters(Strict):
    """What a profile's ``data`` table must hold.

    ``vocabulary`` counts the ids that are kept, and "other", which is the last. ``length`` is in
    tokens; ``train``, ``search`` and ``test`` are rows at most: small files give fewer.
    """

    source: Source
    seed: int = Field(ge=0)
    vocabulary: int = Field(ge=3, le=GPT2)
    length: int = Field(ge=8, le=16_384)
    train: int = Field(ge=1)
    search: int = Field(ge=2)
    test: int = Field(ge=2)


def prepare(profile: str, data: Mapping[str, Value], root: Path, progress: Progress) -> Path:
    """Return the data folder under ``root``; make it first if it is missing or incomplete.

    Raises ConfigError if ``data``, a file or the hidden key is wrong, or ``root`` cannot be
    written.
    """
    p = check(BabiStoriesParameters, TASK, profile, data)
    folder = folder_given(TASK, p.source, WANTED)
    files = [folder / name for name in FILES]
    for file in files:
        if not file.is_file():
            found = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
            raise ConfigError(
                f"{folder} does not hold BabiStories.",
                cause=f"there is no file {file.name}; it has {found or 'nothing'}",
                remedy=f"--data DIR, a folder {WANTED}: their prepare.py writes them",
            )
    key = hidden_key(root)
    state = source_state(GENERATOR, p, identity(files), key)

    def make() -> Arrays:
        return _arrays(p, files, key.seed(TASK, p.seed) if key else p.seed, progress)

    return prepare_arrays(
        TASK, profile, GENERATOR, p.model_dump(), make, root, progress, key=key, state=state
    )


def _arrays(
    p: BabiStoriesParameters, files: list[Path], hidden_seed: int, progress: Progress
) -> Arrays:
    progress("choosing blocks", 0, 1)
    train, val = (_stream(file) for file in files)
    whole, ours = ((len(ids) - 1) // p.length for ids in (train, val))
    search = min(ours, whole // 2)
    for split, count, file in (("test", ours, files[1]), ("search", search, files[0])):
        if count < 2:
            raise ConfigError(
                f"{file} is too small.",
                cause=f"it has {count} blocks of {p.length} tokens for {split}; wanted: two",
                remedy="give the whole file, or choose a smaller profile",
            )
    for_training = RandomStream(p.seed, 1).order(whole - search)[: p.train]
    for_search = whole - search + RandomStream(hidden_seed, 2).order(search)[: p.search]
    for_test = RandomStream(hidden_seed, 3).order(ours)[: p.test]
    chosen = {
        "train": (files[0], train, for_training),
        "search": (files[0], train, for_search),
        "test": (files[1], val, for_test),
    }
    rows: dict[str, TokenIds] = {}
    for split, (file, ids, blocks) in chosen.items():
        rows[split] = _blocks(ids, np.sort(blocks), p.length)
        if rows[split].max() >= GPT2:
            raise ConfigError(
                f"{file} holds the id {int(rows[split].max()):,}, which GPT-2 does not have.",
                cause="ids are read as little-endian uint16, below 50,257",
                remedy="write it with GPT-2's tokenizer, as uint16, as Memory Mosaics does",
            )
    table = commonest(rows["train"], p.vocabulary)
    progress("choosing blocks", 1, 1)
    kept = {split: table[ids] for split, ids in rows.items()}
    other = float((kept["test"][:, 1:] == p.vocabulary - 1).mean())
    facts: dict[str, Value] = {"other": round(other, 6)}
    return language_arrays(PART, kept, p.vocabulary, 0, progress, facts=facts)


def _stream(file: Path) -> NDArray[np.uint16]:
    """Return the ids of a file, which stay on disk. Raises ConfigError."""
    with naming(file):
        return np.memmap(file, "<u2", "r")  # a ValueError if it is empty or half an id is left


def _blocks(ids: NDArray[np.uint16], numbers: NDArray[np.int64], length: int) -> TokenIds:
    """Return blocks by their numbers, each with the id after it: (blocks, length + 1)."""
    rows = np.empty((len(numbers), length + 1), np.uint16)
    for row, number in zip(rows, numbers.tolist(), strict=True):
        row[:] = ids[number * length : number * length + length + 1]
    return rows


def commonest(rows: TokenIds, vocabulary: int) -> NDArray[np.int32]:
    """Return the new id of each of GPT-2's: 0 of the end of a text, then the commonest of ``rows``.

    Of equally common ones the lower id comes first. All others have the last id.
    """
    counts = np.bincount(rows.reshape(-1), minlength=GPT2)
    counts[END_OF_TEXT] = len(rows) * rows.shape[1] + 1  # the first, however rare
    order = np.argsort(-counts, kind="stable")
    table = np.full(GPT2, vocabulary - 1, np.int32)
    table[order[: vocabulary - 1]] = np.arange(vocabulary - 1)
    return table
