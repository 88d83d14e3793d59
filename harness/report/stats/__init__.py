"""Statistics of runs, on numpy alone: each is explained, with its source, in docs/statistics.md."""

from harness.report.stats import student
from harness.report.stats.elo import Player, ratings
from harness.report.stats.intervals import Interval, clip, over_seeds, t_interval, wilson
from harness.report.stats.margin import Call, call_of
from harness.report.stats.nines import BOUNDS, Marks, marks_of, normalized
from harness.report.stats.paired import Difference, holm, paired, unpaired

__all__ = [
    "BOUNDS",
    "Call",
    "Difference",
    "Interval",
    "Marks",
    "Player",
    "call_of",
    "clip",
    "holm",
    "marks_of",
    "normalized",
    "over_seeds",
    "paired",
    "ratings",
    "student",
    "t_interval",
    "unpaired",
    "wilson",
]
