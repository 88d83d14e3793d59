"""The data classes of a leaderboard. Its JSON format has their fields, in this order.

leaderboard.py fills them and board_text.py prints them. Scores are in the metric of their task.
Costs are those of graded runs only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from harness.report.samples import By
from harness.report.stats.elo import Player
from harness.report.stats.intervals import Interval
from harness.report.stats.normalized import ScoreScale
from harness.store.index import EntryState
from tasks.definition import Reference
from tasks.metrics import Direction

BoardMetric = Literal["score", "normalized", "vsr", "elo", "cost"]
TESTED: frozenset[BoardMetric] = frozenset({"score", "normalized", "elo"})
"""The metrics for which each row is tested against the first row."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of graded runs that are valid, 0 to 1. Both fields are None if none was graded."""

    share: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Total use of all ``runs``, calls with lost answers included. None is unknown, never 0."""

    runs: int
    input_tokens: int | None
    """Cached tokens included."""
    output_tokens: int | None
    dollars: float | None
    dollars_known: float
    """Cost of the calls whose price is known: a lower bound of what was spent."""
    gpu_hours: float | None

    @property
    def tokens(self) -> int | None:
        """Input and output tokens together."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class BoardCell:
    """A row's runs of one task."""

    planned: int
    graded: int
    valid: int
    vsr: Share
    median: float | None
    """Like ``mean``, over the seeds with a valid run; None if there is no such seed."""
    mean: float | None
    best: float | None
    """Best score of the valid runs; None if there is no valid run."""
    interval: Interval | None
    """95 % interval of the mean or of the median; None for too few seeds."""
    scores: Mapping[int, tuple[float | None, ...]]
    """Scores of graded runs by seed; None stands for an invalid run."""
    normalized: float | None
    """0 at the task's worst mark, 1 at its best; None if the task has no marks."""
    cost: Cost


@dataclass(frozen=True, slots=True)
class Against:
    """A row tested against the first, paired by seed. ``same``: no significant difference."""

    same: bool
    p: float
    """Two-sided p value, corrected for the number of rows."""
    pairs: int
    """Seeds that both rows have; with fewer than two, ``p`` is 1."""


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A contender. ``agent`` or ``policy`` is empty if its runs are pooled over all of these."""

    agent: str
    policy: str
    setup: str
    """Settings that differ from the other rows of its agent and policy; empty if none differ."""
    planned: int
    graded: int
    valid: int
    vsr: Share
    cells: Mapping[str, BoardCell]
    """By task; a task without a graded run has no cell."""
    worth: float | None
    """With one task, the mean score, negated if less is better. With several, the mean normalised
    score; None if a task has no marks. None if no run was graded."""
    normalized: float | None
    """Mean over tasks; None if a task has no marks, or no run was graded."""
    elo: Player | None
    """Over all tasks; None if there is no other player."""
    cost: Cost
    against_leader: Against | None
    """None for the first row, for metrics outside ``TESTED``, and without a common scale."""
    value: float | None
    """What rows are ordered by, larger being better; rows with None come last."""


@dataclass(frozen=True, slots=True)
class Column:
    """A task, and the values that its scores are compared with."""

    task: str
    metric: str
    direction: Direction
    task_hash: str
    data_hash: str
    baselines: Mapping[str, float]
    """On the test split, by their bare names; empty if the data are gone."""
    references: tuple[Reference, ...]
    """Published values for the table's profile; empty if the task is not installed here."""
    marks: ScoreScale | None
    """None if the task has no marks to normalise by."""


@dataclass(frozen=True, slots=True)
class Table:
    """Runs under equal conditions. ``rows``: the best first. ``tasks``: by name."""

    conditions: Mapping[str, str]
    reason: str
    """Why these runs are not in the first table; empty for the first table."""
    ranked: bool
    """False for a trial profile: its scores mean nothing elsewhere and are not a ranking."""
    tasks: tuple[Column, ...]
    rows: tuple[BoardRow, ...]
    human: Player | None
    """The published human results as a player; None if no task has one."""


@dataclass(frozen=True, slots=True)
class NotGraded:
    """A run without a result. ``run`` is its path."""

    run: str
    state: EntryState
    message: str


@dataclass(frozen=True, slots=True)
class Replay:
    """A run that repeats another. ``run`` is its path."""

    run: str
    agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """All tables, the one with the most runs first, and the runs that are in no table."""

    format: Literal[2] = 2
    metric: BoardMetric
    by: By
    tables: tuple[Table, ...]
    not_graded: tuple[NotGraded, ...]
    replays: tuple[Replay, ...]
    skipped: Mapping[str, str]
    """Unreadable run directories: path to reason."""

    def as_json(self) -> dict[str, Any]:
        """Return the board as values that ``json`` can write."""
        # Built here, not at import: it takes 10 ms, and only JSON needs it.
        values: dict[str, Any] = TypeAdapter(Board).dump_python(self)
        return values
