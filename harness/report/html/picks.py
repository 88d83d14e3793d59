"""Shows the winner's curse: the search score by which a node was picked, against its test score.

The best of many noisy scores is partly luck, so a pick scores less on other rows and after another
training. Its shortfall is counted so that more than 0 is worse on the test split, whatever the
metric's direction.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.base.numbers import counted
from harness.report.drawing.plots import DotPlot, DotRow, strips
from harness.report.html.figures import COLOURS, MOST_STRIPS, better, by_conditions, sign_of
from harness.report.html.traces import Trace
from harness.report.samples import contenders
from harness.report.stats.intervals import FEWEST, t_interval
from harness.report.stats.normalized import clip
from harness.store.index import IndexEntry
from tasks.metrics import METRICS

MOST_PICKS = 200
"""Runs that are listed one by one."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One run's pick. ``shortfall`` is positive where the test score is the worse one."""

    who: str
    seed: int
    search: float
    test: float
    shortfall: float


@dataclass(frozen=True, slots=True)
class PickRow:
    """The picks of one contender, a seed that was run twice counted once: three means.

    ``interval`` is Student's 95 % interval of the mean shortfall, None below three seeds.
    """

    who: str
    seeds: int
    search: float
    test: float
    shortfall: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class PickTable:
    """The picks of a task under one set of conditions, in the order of the agents' test scores."""

    name: str
    better: str
    rows: tuple[PickRow, ...]
    picks: tuple[Pick, ...]
    plot: DotPlot
    note: str


def pick_of(entry: IndexEntry, who: str = "") -> Pick | None:
    """Return a run's pick; None without both scores."""
    asked, outcome = entry.asked, entry.outcome
    if not asked or not outcome or outcome.score is None or outcome.search_score is None:
        return None
    shortfall = sign_of(entry) * (outcome.search_score - outcome.score) + 0.0  # no minus before a 0
    return Pick(who, asked.seed, outcome.search_score, outcome.score, shortfall)


def tables(traces: Sequence[Trace]) -> list[PickTable]:
    """Return a table for each task and set of conditions in which a run has both scores."""
    made = (_table(name, group) for name, group in by_conditions(traces))
    return [table for table in made if table]


def _table(name: str, group: Sequence[Trace]) -> PickTable | None:
    entries = [found.entry for found in group]
    owner = contenders(entries)
    picks: dict[str, list[Pick]] = defaultdict(list)
    for entry in entries:
        if chosen := pick_of(entry, str(owner[entry.path])):
            picks[chosen.who].append(chosen)
    metric = next((e.outcome.metric for e in entries if e.outcome), "")
    if not picks:
        return None
    sign = sign_of(entries[0])
    rows = sorted(
        (_row(who, mine, metric) for who, mine in picks.items()),
        key=lambda row: (-sign * row.test, row.who),
    )
    listed = [p for row in rows for p in sorted(picks[row.who], key=lambda p: p.seed)]
    without = len(entries) - len(listed)
    return PickTable(
        name,
        f"{metric.replace('_', ' ')}, {better(sign)}",
        tuple(rows),
        tuple(listed[:MOST_PICKS]),
        _plot(rows, picks),
        (f"{counted(without, 'run')} without both scores take no part. " if without else "")
        + (f"Of {len(listed):,} runs {MOST_PICKS} are listed." if len(listed) > MOST_PICKS else ""),
    )


def _row(who: str, mine: Sequence[Pick], metric: str) -> PickRow:
    by_seed: dict[int, list[Pick]] = defaultdict(list)
    for pick in mine:
        by_seed[pick.seed].append(pick)
    means = [
        (
            fmean(p.search for p in same),
            fmean(p.test for p in same),
            fmean(p.shortfall for p in same),
        )
        for same in by_seed.values()
    ]
    shortfalls = [shortfall for _, _, shortfall in means]
    found = t_interval(shortfalls) if len(shortfalls) >= FEWEST else None
    least, most = METRICS.find(metric).bounds
    widest = (least - most, most - least)
    return PickRow(
        who,
        len(means),
        fmean(search for search, _, _ in means),
        fmean(test for _, test, _ in means),
        math.fsum(shortfalls) / len(shortfalls),
        (clip(found.low, widest), clip(found.high, widest)) if found else None,
    )


def _plot(rows: Sequence[PickRow], picks: dict[str, list[Pick]]) -> DotPlot:
    drawn = [
        DotRow(
            row.who,
            min(place, COLOURS - 1),
            tuple(p.shortfall for p in picks[row.who]),
            row.shortfall,
            row.interval,
            _words(row),
        )
        for place, row in enumerate(rows[:MOST_STRIPS])
    ]
    return strips(
        "the shortfall of each pick on the test split, the mean, and its 95 % interval",
        drawn,
        [shortfall for row in drawn for shortfall in row.dots],
        {"as picked": 0.0},
        "Right of the dashed line: worse on the test split than when it was picked.",
    )


def _words(row: PickRow) -> str:
    text = f"mean shortfall {row.shortfall:+.4f}"
    if row.interval:
        text += f", 95 % {row.interval[0]:+.4f} to {row.interval[1]:+.4f}"
    return f"{text}; {counted(row.seeds, 'seed')}"
