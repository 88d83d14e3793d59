"""What a leaderboard is made of. Its JSON has these fields in this order: both are its format.

Scores are in the metric of their task. Costs are of graded runs alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from harness.report.samples import By
from harness.report.stats.elo import Player
from harness.report.stats.intervals import Interval
from harness.report.stats.nines import Scale
from harness.store.index import State
from tasks.definition import Reference
from tasks.metrics import Direction

Metric = Literal["score", "normalized", "vsr", "elo", "cost"]
TESTED: frozenset[Metric] = frozenset({"score", "normalized", "elo"})
"""The metrics by which rows are tested against the first."""


@dataclass(frozen=True, slots=True)
class Share:
    """Valid runs of graded ones, 0 to 1; both None where nothing was graded."""

    share: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What ``runs`` used in all, calls whose answers were lost among it. None: unknown, never 0."""

    runs: int
    input_tokens: int | None
    """Cached ones, too."""
    output_tokens: int | None
    dollars: float | None
    dollars_known: float
    """Of the calls whose price is known: no less was spent."""
    gpu_hours: float | None

    @property
    def tokens(self) -> int | None:
        """Of both kinds."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Cell:
    """A row's runs of one task."""

    planned: int
    graded: int
    valid: int
    vsr: Share
    median: float | None
    """As ``mean``: over seeds with a valid run, None where there is none."""
    mean: float | None
    best: float | None
    """Of the valid runs; None where there is none."""
    interval: Interval | None
    """At 95 %, of the mean or of the median; None for too few seeds."""
    scores: Mapping[int, tuple[float | None, ...]]
    """Of graded runs by seed; None is an invalid run."""
    normalized: float | None
    """0 at the worst mark, 1 at the best; None where the task has no marks."""
    cost: Cost


@dataclass(frozen=True, slots=True)
class Against:
    """A row against the first, paired by seed. ``same``: they cannot be told apart."""

    same: bool
    p: float
    """Two-sided, corrected over the rows."""
    pairs: int
    """Seeds in common; with none ``p`` is 1."""


@dataclass(frozen=True, slots=True)
class Row:
    """A contender. ``agent`` or ``policy`` is empty where its runs are pooled over them."""

    agent: str
    policy: str
    setup: str
    """What was set up otherwise than in the contender's other rows; empty where there are none."""
    planned: int
    graded: int
    valid: int
    vsr: Share
    cells: Mapping[str, Cell]
    """By task; none of a task of which no run was graded."""
    worth: float | None
    """Mean of the scores of a lone task, negated where less is better, else of normalised ones;
    None where a task has no marks, or no run was graded."""
    normalized: float | None
    """Mean over tasks; None where one has no marks, or no run was graded."""
    elo: Player | None
    """Over all tasks; None where there is nobody to meet."""
    cost: Cost
    against_leader: Against | None
    """None for the first row itself, and where there is no common scale."""
    value: float | None
    """What rows are ordered by, more being better; None stands last."""


@dataclass(frozen=True, slots=True)
class Column:
    """A task, and what its scores are held against."""

    task: str
    metric: str
    direction: Direction
    task_hash: str
    data_hash: str
    baselines: Mapping[str, float]
    """On the test split, by their bare names; empty where the data are gone."""
    references: tuple[Reference, ...]
    """Of the table's profile; empty where the task is not here."""
    marks: Scale | None
    """None where there are none to normalise by."""


@dataclass(frozen=True, slots=True)
class Table:
    """Runs under equal conditions: ``rows`` the best first, ``tasks`` by name."""

    conditions: Mapping[str, str]
    reason: str
    """What keeps it from the first table; empty for that."""
    ranked: bool
    """False for a profile whose scores mean nothing elsewhere."""
    tasks: tuple[Column, ...]
    rows: tuple[Row, ...]
    human: Player | None
    """The published people as a player; None where no task has a result of theirs."""


@dataclass(frozen=True, slots=True)
class NotGraded:
    """A run without a verdict, by its path."""

    run: str
    state: State
    message: str


@dataclass(frozen=True, slots=True)
class Replay:
    """A run that repeats another, by its path."""

    run: str
    agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """All tables, the one with the most runs first, and what is in none of them."""

    format: Literal[2] = 2
    metric: Metric
    by: By
    tables: tuple[Table, ...]
    not_graded: tuple[NotGraded, ...]
    replays: tuple[Replay, ...]
    skipped: Mapping[str, str]
    """Why each could not be read, by path."""

    def as_json(self) -> dict[str, Any]:
        """Return it as values that ``json`` writes."""
        # Made here, and not when this is imported: that takes 10 ms, and no other format needs it.
        values: dict[str, Any] = TypeAdapter(Board).dump_python(self)
        return values
