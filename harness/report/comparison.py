"""Compares two sets of runs, paired by seed on each task that both ran under the same conditions.

A difference is B - A, with its sign set so that more is better. An invalid run counts as the worst
score: leaving it out would favour the side that fails on hard seeds. The tests are in stats/.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.base.errors import ConfigError
from harness.base.validation import did_you_mean
from harness.report.samples import Contender, Sample, in_words, samples, told
from harness.report.stats.margin import further_seeds
from harness.report.stats.normalized import clip
from harness.report.stats.paired import Difference, holm, paired, unpaired
from harness.report.stats.student import LEVEL
from harness.store.index import IndexEntry, entries
from tasks.metrics import METRICS


@dataclass(frozen=True, slots=True)
class Pairing:
    """Both sides' runs of one task. ``reason``: why they cannot be compared; empty if they can."""

    task: str
    a: Sample | None
    b: Sample | None
    reason: str = ""
    across: tuple[str, ...] = ()
    """Conditions that differ, which the caller allowed, as text."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A task that can be compared. The ``p`` of ``test`` is corrected for the number of tasks."""

    task: str
    a: Sample
    b: Sample
    across: tuple[str, ...]
    test: Difference | None

    @property
    def verdict(self) -> str:
        if self.test is None:
            return "cannot be told: too few seeds"
        if self.test.identical:
            return "identical in every pair"
        if not _settled(self.test):
            return "cannot be told apart"
        return "B is better" if self.test.mean > 0 else "A is better"

    @property
    def further_seeds(self) -> int | None:
        """How many more seeds like these would settle it; None if settled, untested or too many."""
        if self.test is None or self.test.identical or _settled(self.test):
            return None
        return further_seeds(self.test, 0.0, LEVEL / 2)


def _settled(test: Difference) -> bool:
    return test.p is not None and test.p <= LEVEL


@dataclass(frozen=True, slots=True)
class Comparison:
    """The names of both sides, the tasks that can be compared, and those that cannot."""

    a: str
    b: str
    tasks: tuple[Compared, ...]
    not_compared: tuple[Pairing, ...]


def chosen(text: str, places: Sequence[Path], cache: Path | None) -> list[IndexEntry]:
    """Return the runs at a path, or those of an agent, a policy or AGENT/POLICY in ``places``.

    Blind runs have names of their own: "AGENT (blind)".

    Replays are left out. Raises ConfigError, naming the nearest known name.
    """
    is_path = Path(text).exists()
    runs = entries([Path(text)] if is_path else places, cache=cache)
    found = [entry for entry in runs if entry.asked and not entry.is_replay]
    if is_path:
        return found
    names: dict[str, list[IndexEntry]] = defaultdict(list)
    for entry in found:
        if entry.asked is not None:
            agent, policy = entry.asked.agent, entry.asked.policy
            blind = f" ({told(entry.asked)})" if told(entry.asked) else ""
            for name in (agent, policy, f"{agent}/{policy}"):
                names[name + blind].append(entry)
    if text not in names:
        where = ", ".join(map(str, places))
        raise ConfigError(
            f"{text!r} is no path, and no agent or policy of a run in {where}.",
            remedy=did_you_mean(text, list(names)) if names else "harness ls",
        )
    return names[text]


def pooled(runs: Iterable[IndexEntry], name: str) -> list[Sample]:
    """Return the samples of one side, pooled over agents and policies. Blind runs stay apart."""
    found = [entry for entry in runs if entry.asked]
    return samples(found, {e.path: Contender(name, "", told(e.asked)) for e in found if e.asked})


def pair(a: Iterable[Sample], b: Iterable[Sample], across: Collection[str]) -> list[Pairing]:
    """Match samples of the same task and conditions; conditions in ``across`` may differ."""
    left, right = _by_task(a), _by_task(b)
    found = []
    for task in sorted(left.keys() | right.keys()):
        found += _pair_task(task, left.get(task, []), right.get(task, []), across)
    return found


def _by_task(found: Iterable[Sample]) -> dict[str, list[Sample]]:
    tasks: dict[str, list[Sample]] = defaultdict(list)
    for sample in found:
        tasks[sample.task].append(sample)
    return tasks


def _pair_task(
    task: str, left: list[Sample], right: list[Sample], across: Collection[str]
) -> list[Pairing]:
    found, free = [], list(right)
    for a in left:
        fits = [b for b in free if not a.differs(b, across)]
        if not fits:
            reason = _why(a, right, across) if right else "only A has runs of it"
            found.append(Pairing(task, a, None, reason))
            continue
        best = min(fits, key=lambda b: len(a.differs(b)))
        free.remove(best)
        differing = in_words(a.differs(best), a.conditions, best.conditions, "→")
        found.append(Pairing(task, a, best, "", tuple(differing)))
    for b in free:
        reason = _why(b, left, across) if left else "only B has runs of it"
        found.append(Pairing(task, None, b, reason))
    return found


def _why(sample: Sample, others: list[Sample], across: Collection[str]) -> str:
    nearest = min(others, key=lambda other: len(sample.differs(other, across)))
    names = sample.differs(nearest, across)
    parts = in_words(names, sample.conditions, nearest.conditions, "against")
    return f"other conditions: {'; '.join(parts)}" if parts else "another set fits better"


def difference(a: Sample, b: Sample) -> Difference | None:
    """Return B - A, more being better.

    Paired by seed if they share a seed, else of the two means (None if a side has fewer than two).
    """
    both = by_seed(a, b)
    if both:
        return paired(list(both.values()), score_step=max(a.score_step, b.score_step))
    lower, higher = (a, b) if a.sign > 0 else (b, a)  # where less is better, A - B is what counts
    return unpaired(list(lower.values.values()), list(higher.values.values()))


def by_seed(a: Sample, b: Sample) -> dict[int, float]:
    """Return B - A, more being better, for each seed that both have."""
    before, after = a.values, b.values
    both = sorted(before.keys() & after.keys())
    # + 0.0: no minus before a zero.
    return {seed: a.sign * (after[seed] - before[seed]) + 0.0 for seed in both}


def bounded(test: Difference, metric: str) -> tuple[float | None, float | None]:
    """Return the ends of a difference's interval, cut to the largest possible difference."""
    least, most = METRICS.find(metric).bounds
    apart = most - least
    low, high = (None if v is None else clip(v, (-apart, apart)) for v in (test.low, test.high))
    return low, high


def compare(
    a: Iterable[IndexEntry],
    b: Iterable[IndexEntry],
    names: tuple[str, str],
    across: Collection[str],
) -> Comparison:
    """Pair the runs of both sides, and test the difference on each task."""
    pairings = pair(pooled(a, names[0]), pooled(b, names[1]), across)
    both = [(p, p.a, p.b) for p in pairings if p.a and p.b]
    tests = _corrected([difference(left, right) for _, left, right in both])
    tasks = tuple(
        Compared(p.task, left, right, p.across, test)
        for (p, left, right), test in zip(both, tests, strict=True)
    )
    return Comparison(*names, tasks, tuple(p for p in pairings if p.reason))


def _corrected(tests: Sequence[Difference | None]) -> list[Difference | None]:
    adjusted = iter(holm([d.p for d in tests if d and d.p is not None]))
    return [replace(d, p=next(adjusted)) if d and d.p is not None else d for d in tests]


def as_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    return {
        "format": 1,
        "a": found.a,
        "b": found.b,
        "tasks": [_row(one) for one in found.tasks],
        "not_compared": [{"task": p.task, "reason": p.reason} for p in found.not_compared],
    }


def _row(one: Compared) -> dict[str, Any]:
    test, gap = one.test, None
    if test is not None:
        low, high = bounded(test, one.a.metric)
        gap = {
            "mean": test.mean,
            "low": low,
            "high": high,
            "p": test.p,
            "n": test.n,
            "paired": test.paired,
            "by_seed": by_seed(one.a, one.b) if test.paired else None,
            "further_seeds": one.further_seeds,
        }
    return {
        "task": one.task,
        "reason": "",
        "metric": one.a.metric,
        "direction": one.a.direction,
        "conditions": dict(one.a.conditions),
        "across": list(one.across),
        "a": _side(one.a),
        "b": _side(one.b),
        "difference": gap,
        "verdict": one.verdict,
    }


def _side(sample: Sample) -> dict[str, Any]:
    return {
        "mean": fmean(sample.values.values()),
        "mean_of_valid": fmean(sample.valid) if sample.valid else None,
        "graded": sample.graded,
        "valid": len(sample.valid),
        "seeds": sorted(sample.values),
    }
