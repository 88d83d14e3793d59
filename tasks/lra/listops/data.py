"""ListOps data, made by our own generator with the published grammar and distribution.

Nangia and Bowman (arXiv 1804.06028) in the form of Long Range Arena (arXiv 2011.04006,
google-research/long-range-arena, commit cd31e5c): a node above the depth limit is an operator
with probability 1/4, else a digit; an operator has 2..max_args arguments, all numbers equally
likely, and is MIN, MAX, MED or SM, all equally likely. Expressions are kept when
``min_length < length < max_length``.

Unlike the original, this generator is seeded, its token ids are a fixed table, and the splits share
no expression. With a hidden key, search and test are drawn from a seed of their own, and hold no
expression that the public seed draws. Many trees grow at once, one depth after the other, in a
hundredth of the time of a recursive generator. What is drawn for a node depends on its depth alone,
so the distribution is the same.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.base.errors import ConfigError
from harness.base.strict import Strict
from tasks.definition import Progress, Value
from tasks.hidden import hidden_key
from tasks.lra.rows import DataRows, by_split, check, majority, prepare_rows
from tasks.shared import SPLITS
from tasks.stream import Bytes, Ints, RandomStream

TASK = "lra/listops"
GENERATOR = "listops-1"
"""Raise the number whenever the same parameters would give other rows."""

TOKENS = ("<pad>", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "X")
"""Token id → token. It stands in description.md too; never reorder it."""
DIGIT_0, MIN, MAX, MED, SM, CLOSE = 1, 11, 12, 13, 14, 15
CLASSES = 10
OPERATOR_SHARE = 0.25

NODES_AT_ONCE = 1_000_000
BARREN_ROUNDS = 50


class ListopsParameters(Strict):
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


@dataclass(slots=True)
class TreeLevel:
    """All nodes of one depth, ordered by tree, then by parent, then from left to right."""

    tree: Ints  # (nodes,) which tree the node stands in
    arity: Ints  # (nodes,) number of arguments, 0 for a digit

    def of(self, kept: NDArray[np.bool_]) -> "TreeLevel":
        """Return the level with the nodes of the ``kept`` trees only, trees renumbered."""
        here = kept[self.tree]
        number = np.cumsum(kept) - 1
        return TreeLevel(number[self.tree[here]], self.arity[here])


def grow(stream: RandomStream, trees: int, p: ListopsParameters) -> tuple[list[TreeLevel], Ints]:
    """Draw ``trees`` trees; return those with an allowed length, by level, and their lengths.

    A tree is dropped as soon as it is certain to be too long, because most of the nodes of an
    unbounded run would belong to such trees.
    """
    levels: list[TreeLevel] = []
    lengths = np.zeros(trees, np.int64)
    tree = np.arange(trees)
    for depth in range(1, p.max_depth + 1):
        arity = np.zeros(len(tree), np.int64)
        if depth < p.max_depth:
            operators = np.flatnonzero(stream.uniform(len(tree)) <= OPERATOR_SHARE)
            arity[operators] = 2 + stream.below(p.max_args - 1, len(operators))
        levels.append(TreeLevel(tree, arity))
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


def evaluate(
    stream: RandomStream, levels: list[TreeLevel]
) -> tuple[list[Ints], list[Ints], list[Ints]]:
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


def write_out(levels: list[TreeLevel], symbols: list[Ints], sizes: list[Ints], width: int) -> Bytes:
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


def expressions(p: ListopsParameters, seed: int) -> Iterator[tuple[Bytes, Bytes]]:
    """Yield endless batches of tokens (rows, max_length) and labels (rows,)."""
    stream = RandomStream(seed)
    trees = max(64, NODES_AT_ONCE // p.max_length)
    while True:
        levels, _ = grow(stream, trees, p)
        if not len(levels[0].tree):
            yield np.zeros((0, p.max_length), np.uint8), np.zeros(0, np.uint8)
            continue
        symbols, values, sizes = evaluate(stream, levels)
        tokens = write_out(levels, symbols, sizes, p.max_length)
        yield tokens, values[0].astype(np.uint8)


def generate(
    p: ListopsParameters, progress: Progress, hidden_seed: int | None = None
) -> dict[str, tuple[Bytes, Bytes]]:
    """Return split → (tokens, labels); no expression occurs twice, within a split or across splits.

    With ``hidden_seed`` search and test are drawn from it, and hold no expression of the published
    splits. Raises ConfigError where there are too few different expressions.
    """
    seen: set[bytes] = set()
    tokens, labels = _different(p, p.seed, p.total, seen, progress)
    ends = np.cumsum((p.train, p.search, p.test))
    parts = [(tokens[a:b], labels[a:b]) for a, b in zip((0, *ends[:-1]), ends, strict=True)]
    if hidden_seed is not None:
        tokens, labels = _different(p, hidden_seed, p.search + p.test, seen, progress)
        at = p.search
        parts[1:] = [(tokens[:at], labels[:at]), (tokens[at:], labels[at:])]
    return dict(zip(SPLITS, parts, strict=True))


def _different(
    p: ListopsParameters, seed: int, count: int, seen: set[bytes], progress: Progress
) -> tuple[Bytes, Bytes]:
    """Return ``count`` expressions that are not in ``seen``, with labels; add them to ``seen``."""
    tokens = np.zeros((count, p.max_length), np.uint8)
    labels = np.zeros(count, np.uint8)
    done = barren = 0
    for new_tokens, new_labels in expressions(p, seed):
        before = done
        for row, label in zip(new_tokens, new_labels, strict=True):
            key = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            if key in seen:
                continue
            seen.add(key)
            tokens[done], labels[done] = row, label
            done += 1
            if done == count:
                break
        progress("generating expressions", done, count)
        if done == count:
            break
        barren = barren + 1 if done == before else 0
        if barren == BARREN_ROUNDS:
            raise ConfigError(
                f"ListOps found only {done:,} of {count:,} different expressions.",
                cause=f"lengths between {p.min_length} and {p.max_length}, depth {p.max_depth} and "
                f"{p.max_args} arguments allow no more, or make them too rare",
                remedy="ask for fewer rows, or widen the lengths, the depth or the arguments",
            )
    # Short expressions run out first, so what is drawn late is longer: shuffle before the split.
    order = RandomStream(seed, 1).order(count)
    return tokens[order], labels[order]


def baselines(splits: Mapping[str, tuple[Bytes, Bytes]]) -> dict[str, float]:
    """Return the accuracy of two guesses without a model, fitted on the training rows.

    ``majority`` always predicts the most common label, ``first_token`` the most common label of the
    rows that begin with the same token. These are for search; ``…_test`` are for test.
    """
    tokens, labels = splits["train"]
    table = np.zeros((len(TOKENS), CLASSES), np.int64)
    np.add.at(table, (tokens[:, 0], labels), 1)
    by_first = table.argmax(axis=1)
    return {
        **majority(splits, CLASSES),
        **by_split("first_token", splits, lambda tokens: by_first[tokens[:, 0]]),
    }


def prepare(profile: str, data: Mapping[str, Value], root: Path, progress: Progress) -> Path:
    """Return the data folder under ``root``; make it first if it is missing or incomplete.

    Raises ConfigError if ``data`` or the hidden key is wrong or ``root`` cannot be written.
    """
    p = check(ListopsParameters, TASK, profile, data)
    if p.min_length + 1 >= p.max_length:
        raise ConfigError("ListOps needs min_length + 1 < max_length: both bounds are exclusive.")
    shape = {"length": p.max_length, "vocabulary": len(TOKENS), "classes": CLASSES}
    key = hidden_key(root)

    def make() -> DataRows:
        splits = generate(p, progress, key.seed(TASK, p.seed) if key else None)
        return DataRows(splits, shape, baselines(splits))

    return prepare_rows(TASK, profile, GENERATOR, p, make, root, progress, key=key)
