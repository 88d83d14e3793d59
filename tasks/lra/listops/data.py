"""ListOps data, made by our own generator with the published grammar and distribution.

Nangia and Bowman (arXiv 1804.06028) in the form of Long Range Arena (arXiv 2011.04006,
google-research/long-range-arena, commit cd31e5c): a node above the depth limit is an operator
with probability 1/4, else a digit; an operator has 2..max_args arguments, each number as
likely, and is MIN, MAX, MED or SM, each as likely. Expressions are kept when
``min_length < length < max_length``.

Unlike the original it is seeded, its token ids are a fixed table, and the splits share no
expression. It grows many trees at once, one depth after the other, which needs a hundredth of
the time of a recursive one; what is drawn for a node depends on its depth alone, so the
distribution is the same. Random numbers come from the raw PCG64 stream, which numpy promises
never to change, unlike the methods of its Generator.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from harness.errors import ConfigError
from tasks.spec import Manifest, Progress, Strict, Value, digest

GENERATOR = "listops-1"
"""Raise the number whenever the same parameters would give other rows."""

TOKENS = ("<pad>", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "X")
"""Token id → token. It stands in description.md too; never reorder it."""
DIGIT_0, MIN, MAX, MED, SM, CLOSE = 1, 11, 12, 13, 14, 15
CLASSES = 10
OPERATOR_SHARE = 0.25

SPLITS = ("train", "search", "test")
HIDDEN = ("search", "test")
CHECKSUM_ON_REUSE_BYTES = 100_000_000
NODES_AT_ONCE = 1_000_000
BARREN_ROUNDS = 50

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class Parameters(Strict):
    """What a profile's ``data`` table may hold; lengths are exclusive bounds, in tokens."""

    seed: int = Field(ge=0)
    min_length: int = Field(ge=0)
    max_length: int = Field(ge=4, le=20_000)
    max_depth: int = Field(ge=2, le=64)
    max_args: int = Field(ge=2, le=64)
    train: int = Field(ge=1)
    search: int = Field(ge=1)
    test: int = Field(ge=1)

    @property
    def total(self) -> int:
        return self.train + self.search + self.test


class Stream:
    """A stream of random numbers that is the same for a seed under every numpy."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` numbers in [0, 1)."""
        raw = np.asarray(self._bits.random_raw(count), dtype=np.uint64)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, limit: int, count: int) -> Ints:
        """Return ``count`` integers in [0, limit)."""
        return (self.uniform(count) * limit).astype(np.int64)


@dataclass(slots=True)
class Level:
    """All nodes of one depth, ordered by tree, then by parent, then from left to right."""

    tree: Ints  # (nodes,) which tree the node stands in
    arity: Ints  # (nodes,) number of arguments, 0 for a digit

    def of(self, kept: NDArray[np.bool_]) -> "Level":
        """Return the level with the nodes of the ``kept`` trees only, trees renumbered."""
        here = kept[self.tree]
        number = np.cumsum(kept) - 1
        return Level(number[self.tree[here]], self.arity[here])


def grow(stream: Stream, trees: int, p: Parameters) -> tuple[list[Level], Ints]:
    """Draw ``trees`` trees; return those with an allowed length, by level, and their lengths.

    A tree is dropped as soon as its length can only be too large: most of the nodes of an
    unbounded run would belong to such trees.
    """
    levels: list[Level] = []
    lengths = np.zeros(trees, np.int64)
    tree = np.arange(trees)
    for depth in range(1, p.max_depth + 1):
        arity = np.zeros(len(tree), np.int64)
        if depth < p.max_depth:
            operators = np.flatnonzero(stream.uniform(len(tree)) <= OPERATOR_SHARE)
            arity[operators] = 2 + stream.below(p.max_args - 1, len(operators))
        levels.append(Level(tree, arity))
        lengths += np.bincount(tree, weights=1 + (arity > 0), minlength=len(lengths)).astype(int)
        waiting = np.bincount(tree, weights=arity, minlength=len(lengths)).astype(int)
        kept = lengths + waiting < p.max_length
        if depth == p.max_depth:
            kept &= lengths > p.min_length
        if not kept.all():
            levels = [level.of(kept) for level in levels]
            lengths = lengths[kept]
        tree = np.repeat(levels[-1].tree, levels[-1].arity)
    return levels, lengths


def evaluate(stream: Stream, levels: list[Level]) -> tuple[list[Ints], list[Ints], list[Ints]]:
    """Draw digits and operators; return per level the nodes' symbols, values and sizes.

    A symbol is the token id of the digit or operator, a size the tokens of the subtree.
    """
    symbols: list[Ints] = []
    values: list[Ints] = []
    sizes: list[Ints] = []
    for level in reversed(levels):
        digits = stream.below(10, len(level.tree))
        symbol, value = digits + DIGIT_0, digits.copy()
        size = np.ones(len(level.tree), np.int64)
        parents = np.flatnonzero(level.arity)
        if len(parents):
            arity = level.arity[parents]
            ends = np.cumsum(arity)
            starts = ends - arity
            below = values[-1]
            # Arguments sorted within each parent: values stay under 10, so one key holds both.
            ordered = np.sort(np.repeat(np.arange(len(parents)), arity) * 10 + below) % 10
            median = (ordered[starts + (arity - 1) // 2] + ordered[starts + arity // 2]) // 2
            operator = MIN + stream.below(4, len(parents))
            sums = np.add.reduceat(below, starts) % 10
            answers = np.stack((ordered[starts], ordered[ends - 1], median, sums))
            symbol[parents] = operator
            value[parents] = answers[operator - MIN, np.arange(len(parents))]
            size[parents] = 2 + np.add.reduceat(sizes[-1], starts)
        symbols.append(symbol)
        values.append(value)
        sizes.append(size)
    return symbols[::-1], values[::-1], sizes[::-1]


def write_out(levels: list[Level], symbols: list[Ints], sizes: list[Ints], width: int) -> Bytes:
    """Return the trees as padded token ids, (trees, width), operators before their arguments."""
    trees = len(levels[0].tree)
    tokens = np.zeros((trees, width), np.uint8)
    at = np.zeros(trees, np.int64)
    for depth, level in enumerate(levels):
        tokens[level.tree, at] = symbols[depth]
        parents = np.flatnonzero(level.arity)
        if not len(parents):
            break
        tokens[level.tree[parents], at[parents] + sizes[depth][parents] - 1] = CLOSE
        arity = level.arity[parents]
        size = sizes[depth + 1]
        before = np.cumsum(size) - size
        first = np.repeat(before[np.cumsum(arity) - arity], arity)
        at = np.repeat(at[parents] + 1, arity) + before - first
    return tokens


def expressions(p: Parameters) -> Iterator[tuple[Bytes, Bytes]]:
    """Yield endless batches of tokens (rows, max_length) and labels (rows,)."""
    stream = Stream(p.seed)
    trees = max(64, NODES_AT_ONCE // p.max_length)
    while True:
        levels, _ = grow(stream, trees, p)
        if not len(levels[0].tree):
            yield np.zeros((0, p.max_length), np.uint8), np.zeros(0, np.uint8)
            continue
        symbols, values, sizes = evaluate(stream, levels)
        tokens = write_out(levels, symbols, sizes, p.max_length)
        yield tokens, values[0].astype(np.uint8)


def generate(p: Parameters, progress: Progress) -> dict[str, tuple[Bytes, Bytes]]:
    """Return split → (tokens, labels), no expression standing twice in all of them."""
    seen: set[bytes] = set()
    tokens = np.zeros((p.total, p.max_length), np.uint8)
    labels = np.zeros(p.total, np.uint8)
    done = barren = 0
    for new_tokens, new_labels in expressions(p):
        before = done
        for row, label in zip(new_tokens, new_labels, strict=True):
            key = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            if key in seen:
                continue
            seen.add(key)
            tokens[done], labels[done] = row, label
            done += 1
            if done == p.total:
                break
        progress("generating expressions", done, p.total)
        if done == p.total:
            break
        barren = barren + 1 if done == before else 0
        if barren == BARREN_ROUNDS:
            raise ConfigError(
                f"ListOps found only {done:,} of {p.total:,} different expressions.",
                cause=f"lengths between {p.min_length} and {p.max_length}, depth {p.max_depth} and "
                f"{p.max_args} arguments allow no more, or make them too rare",
                remedy="ask for fewer rows, or widen the lengths, the depth or the arguments",
            )
    # Short expressions run out first, so what is drawn late is longer: shuffle before the split.
    order = np.argsort(Stream(p.seed, 1).uniform(p.total), kind="stable")
    bounds = np.cumsum([0, p.train, p.search, p.test])
    parts = [order[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    return {s: (tokens[part], labels[part]) for s, part in zip(SPLITS, parts, strict=True)}


def baselines(splits: Mapping[str, tuple[Bytes, Bytes]]) -> dict[str, float]:
    """Return what two guesses that need no learning score, fitted on the training rows.

    ``majority`` always names the commonest label, ``first_token`` the commonest label of the
    rows that begin with the same token; both on the search split, ``…_test`` on the test split.
    """
    tokens, labels = splits["train"]
    table = np.zeros((len(TOKENS), CLASSES), np.int64)
    np.add.at(table, (tokens[:, 0], labels), 1)
    majority, by_first = table.sum(axis=0).argmax(), table.argmax(axis=1)
    found = {}
    for split, suffix in (("search", ""), ("test", "_test")):
        tokens, labels = splits[split]
        found[f"majority{suffix}"] = round(float((labels == majority).mean()), 6)
        found[f"first_token{suffix}"] = round(float((labels == by_first[tokens[:, 0]]).mean()), 6)
    return found


def prepare(profile: str, data: Mapping[str, Value], root: Path, progress: Progress) -> Path:
    """Make the data folder under ``root`` if it is not there whole, and return it.

    Raises ConfigError if ``data`` is wrong or ``root`` cannot be written.
    """
    try:
        p = Parameters.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError(
            f"The data table of lra/listops, profile {profile}, is wrong.", cause=str(error)
        ) from error
    if p.min_length + 1 >= p.max_length:
        raise ConfigError("ListOps needs min_length + 1 < max_length: both bounds are exclusive.")
    name = f"lra-listops-{profile}-{digest(GENERATOR + p.model_dump_json())}"
    folder, unfinished = root / name, root / f".{name}.part"
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / f".{name}.lock")
        _acquire(lock, progress)
        try:
            fault = find_fault(folder, p)
            if fault == "":
                return folder
            if folder.exists():
                progress(f"rebuilding, for {fault}", 0, p.total)
            shutil.rmtree(unfinished, ignore_errors=True)
            _write(unfinished, profile, p, generate(p, progress))
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
        finally:
            lock.release()
    except OSError as error:
        raise ConfigError(
            f"The data of lra/listops cannot be written under {root}.",
            cause=str(error),
            remedy=f"free some space, or make {root} writable, or choose another data folder",
        ) from error
    return folder


def find_fault(folder: Path, p: Parameters) -> str:
    """Return why ``folder`` is not the whole data of ``p``, or "" if it is.

    Headers, shapes and sizes are always looked at; contents where that takes under a second.
    """
    try:
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
        if manifest.parameters != p.model_dump():
            return "manifest.json speaks of other parameters"
        for split in SPLITS:
            shapes = {"tokens": (getattr(p, split), p.max_length), "labels": (getattr(p, split),)}
            for what, shape in shapes.items():
                array = np.load(folder / split / f"{what}.npy", mmap_mode="r")
                if array.shape != shape or array.dtype != np.uint8:
                    return f"{split}/{what}.npy has a wrong shape"
        paths = {name: folder / name for name in manifest.files}
        if sum(path.stat().st_size for path in paths.values()) < CHECKSUM_ON_REUSE_BYTES:
            for name, path in paths.items():
                if _checksum(path) != manifest.files[name]:
                    return f"{name} does not have the content it was written with"
    except (OSError, ValueError) as error:  # pydantic's and numpy's errors are ValueErrors
        return f"it cannot be read ({error})"
    return ""


def _acquire(lock: FileLock, progress: Progress) -> None:
    while True:
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            progress("waiting for another process that makes this data", 0, 1)
        else:
            return


def _write(
    folder: Path, profile: str, p: Parameters, splits: Mapping[str, tuple[Bytes, Bytes]]
) -> None:
    folder.mkdir(mode=0o755)
    files = {}
    for split, (tokens, labels) in splits.items():
        (folder / split).mkdir()
        (folder / split).chmod(0o700 if split in HIDDEN else 0o755)
        for what, array in (("tokens", tokens), ("labels", labels)):
            path = folder / split / f"{what}.npy"
            np.save(path, array)
            files[f"{split}/{what}.npy"] = _checksum(path)
    manifest = Manifest(
        task="lra/listops",
        profile=profile,
        generator=GENERATOR,
        parameters=p.model_dump(),
        shape={"length": p.max_length, "vocabulary": len(TOKENS), "classes": CLASSES},
        rows={split: len(labels) for split, (_, labels) in splits.items()},
        files=files,
        baselines=baselines(splits),
    )
    beside = folder / "manifest.json.part"
    with beside.open("w") as out:
        out.write(json.dumps(manifest.model_dump(), indent=2) + "\n")
        out.flush()
        os.fsync(out.fileno())
    beside.rename(folder / "manifest.json")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
