"""Decides which runs may share a table, and says why others may not.

A table has one profile, one kind of isolation, one hardware, one scorer and one torch; and, for
each task, one definition and one set of data. Runs that differ go to another table, with the
reason. leaderboard.py fills the tables.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from harness.report.samples import in_words
from harness.store.index import IndexEntry
from tasks import hidden

OF_TASK = ("task", "data")
"""Conditions that belong to each task; all others hold for a whole table."""


@dataclass(frozen=True, slots=True)
class ComparableRuns:
    """Runs for one table. ``reason``: why they are not in the first table; empty for the first."""

    shared: dict[str, str]
    tasks: dict[str, dict[str, str]]
    runs: tuple[IndexEntry, ...]
    reason: str


def comparable_runs(entries: Iterable[IndexEntry]) -> list[ComparableRuns]:
    """Return the tables, the one with the most runs first."""
    groups: dict[tuple[tuple[str, str], ...], list[IndexEntry]] = defaultdict(list)
    conditions = {e.path: e.key for e in entries}
    for entry in entries:
        shared = {k: v for k, v in conditions[entry.path].items() if k not in OF_TASK}
        groups[tuple(shared.items())].append(entry)
    found: list[ComparableRuns] = []
    for key, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        found += _layers(dict(key), members, conditions)
    return [
        ComparableRuns(s.shared, s.tasks, s.runs, _reason(s, found[0]) if s is not found[0] else "")
        for s in found
    ]


def _layers(
    shared: dict[str, str], members: list[IndexEntry], conditions: dict[str, dict[str, str]]
) -> list[ComparableRuns]:
    """Split runs by each task's definition and data: the most frequent ones first."""
    kinds: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)

    def kind(entry: IndexEntry) -> tuple[str, str]:
        own = conditions[entry.path]
        return own.get("task", ""), own.get("data", "")

    for entry in members:
        if entry.asked is not None:
            kinds[entry.asked.task][kind(entry)] += 1
    order = {
        task: [k for k, _ in sorted(found.items(), key=lambda item: (-item[1], item[0]))]
        for task, found in kinds.items()
    }
    layers: list[ComparableRuns] = []
    for depth in range(max(map(len, order.values()))):
        own = {task: found[depth] for task, found in sorted(order.items()) if depth < len(found)}
        runs = tuple(e for e in members if e.asked and own.get(e.asked.task) == kind(e))
        tasks = {t: dict(zip(OF_TASK, k, strict=True)) for t, k in own.items()}
        layers.append(ComparableRuns(shared, tasks, runs, ""))
    return layers


def _reason(sheet: ComparableRuns, first: ComparableRuns) -> str:
    own, other = sheet.shared, first.shared
    names = [name for name in {**other, **own} if own.get(name) != other.get(name)]
    parts = in_words(names, own, other, "instead of")
    for task in sheet.tasks.keys() & first.tasks.keys():
        differs = [n for n in OF_TASK if sheet.tasks[task][n] != first.tasks[task][n]]
        here, there = _hidden_key(sheet, task), _hidden_key(first, task)
        words = {"task": "another definition", "data": "other data"}
        if here != there:
            words["data"] += f" ({hidden.named(here)} instead of {hidden.named(there)})"
        if differs:
            parts.append(f"{task} has " + " and ".join(words[n] for n in differs))
    return "; ".join(parts)


def _hidden_key(sheet: ComparableRuns, task: str) -> str:
    """Return the fingerprint of the key of a task's hidden rows; its runs share it."""
    found = (e.lock.hidden_key for e in sheet.runs if e.asked and e.lock and e.asked.task == task)
    return next(found, "")
