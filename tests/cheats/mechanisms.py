"""The cheats of the mechanism tasks (``tests/cheats/lra``): what they gain, and what stops them.

Of the constants that ``corpus.py`` explains, two differ here, and one is new:

    CAUGHT_BY   reasons; the judge must give one of them
    BEHIND      only if the rules on the text stop the cheat: what stops it without those rules
                (reasons, "gains nothing", or an empty tuple if nothing does)
    GAIN        where the gain shows: "unruled" (without the rules on the text), "unisolated"
                (also without a sandbox), "in order" (rows served in the order of their labels),
                or "in principle" (at this size it does not show)
"""

from contextlib import contextmanager
from dataclasses import dataclass
from shutil import copytree

import numpy as np

from cheats.corpus import NOTHING, Bench, Script
from scorers import audits
from scorers.score import Score
from tasks.lra.listops import data as listops

LEAST_GAIN = 0.1
"""Accuracy that a cheat must gain where its GAIN says that the gain shows."""

SAME = 0.03
"""Difference in accuracy up to which a valid cheat has gained nothing.

Another start of the training changes the accuracy by as much.
"""


@dataclass(frozen=True)
class Case:
    """The scores of a cheat, of its twin, and of the cheat without some defences.

    ``unruled``: without the rules on the text. ``naive``: as GAIN says.
    """

    script: Script
    twin: Score
    score: Score
    unruled: Score
    naive: Score

    @property
    def gain(self) -> float:
        return (self.naive.measured or 0.0) - (self.twin.measured or 0.0)

    @property
    def stopped_behind(self) -> str:
        """What stops the cheat without the rules on the text; "" if nothing does."""
        if self.unruled.reason is not None:
            return str(self.unruled.reason)
        return NOTHING if abs(self.unruled.score - self.twin.score) <= SAME else ""


def judge(bench: Bench, script: Script, *, unisolated) -> Case:
    """Score a cheat with and without the defences that its BEHIND and GAIN name."""
    source = filled(script.source(), bench)
    twin = bench.score(script.twin())
    score = bench.score(source)
    # Without BEHIND, the rules on the text do not stop the cheat: they change nothing.
    unruled = bench.score(source, ruled=False) if "BEHIND" in script.constants else score
    naive = unruled
    if script.gain_shows == "unisolated":
        naive = bench.score(source, ruled=False, backend=unisolated)
    elif script.gain_shows == "in order":
        with in_order(bench):
            naive = bench.score(source + "# in order", ruled=False)
    return Case(script, twin, score, unruled, naive)


def filled(source: str, bench: Bench) -> str:
    """Return a cheat's source with tables of labels in place of its {PLACEHOLDERS}."""
    split = bench.folder / "search"
    known = table(np.load(split / "tokens.npy"), np.load(split / "labels.npy"))
    if "{PUBLISHED_LABELS}" in source:
        source = source.replace('"{PUBLISHED_LABELS}"', repr(published(bench)))
    names = ", ".join(f"{'k' * 8}{k:0>40}_{label}=0" for k, label in known.items())
    source = source.replace('"{HIDDEN_LABELS}"', repr(known))
    return source.replace('"{HIDDEN_NAMES}"', f"table({names})")


def published(bench: Bench) -> dict[int, int]:
    """Return the labels that anybody can make with our generator and the profile's seed."""
    profile = bench.task.profile(bench.profile)
    splits = listops.generate(
        listops.ListopsParameters.model_validate(profile.data), lambda *_: None
    )
    return table(*splits["search"]) | table(*splits["test"])


def table(tokens: np.ndarray, labels: np.ndarray) -> dict[int, int]:
    """Return the label of each row by its key."""
    return {key(row): int(label) for row, label in zip(tokens, labels, strict=True)}


def key(row: np.ndarray) -> int:
    """Return the hash of a row; the tables in the cheats have it as their key."""
    value = 0
    for token in row.tolist():
        value = (value * 1000003 + token + 1) % (1 << 61)
    return value


@contextmanager
def in_order(bench: Bench):
    """Make the judge serve each row once, sorted by label, as a test set on disk may be."""
    data, plan = bench.folder, audits.plan
    split = bench.folder / "search"
    sorted_data = bench.folder.with_name("in-order")
    copytree(data, sorted_data, dirs_exist_ok=True)
    order = np.argsort(np.load(split / "labels.npy"), kind="stable")
    for name in ("tokens.npy", "labels.npy"):
        np.save(sorted_data / "search" / name, np.load(split / name)[order])

    def stored(rows, size, rng):
        return [
            audits.Batch(np.arange(i, min(rows, i + size)), first=True)
            for i in range(0, rows, size)
        ]

    bench.folder, audits.plan = sorted_data, stored
    try:
        yield
    finally:
        bench.folder, audits.plan = data, plan
