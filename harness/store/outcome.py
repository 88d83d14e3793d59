"""How a run ended, read from ``result.json``. ``harness.launch.result`` writes that file."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tasks.metrics import METRICS, MetricName


class RecordedTally(BaseModel):
    """What calls used. ``dollars`` is None if the price of any call is unknown."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    dollars: float | None = 0.0
    dollars_known: float = 0.0
    unpriced_calls: int = 0


class Spent(BaseModel):
    """What a run used, as far as tables show it. Lost calls count at their worst case."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    gpu_hours: float
    queued_s: float = 0.0
    model: RecordedTally
    lost: RecordedTally


class Counts(BaseModel):
    """How many nodes were scored, and how many of those were valid."""

    model_config = ConfigDict(frozen=True)
    scored: int
    valid: int


class ResultConditions(BaseModel):
    """The conditions of a score that are not in its key."""

    model_config = ConfigDict(frozen=True)
    ranked: bool = True


class Repeats(BaseModel):
    """Which run a replay repeats, and where it diverged from that run; "" if it did not."""

    model_config = ConfigDict(frozen=True)
    of: str
    diverged: str = ""


BoundedScore = Annotated[float, Field(ge=-1e9, le=1e9)]
"""A score: real ones are far from these bounds, and statistics can square every value within."""


class Outcome(BaseModel):
    """The part of ``result.json`` that is read again. Fields of newer harnesses are ignored."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    task: str | None = None
    profile: str | None = None
    agent: str | None = None
    policy: str | None = None
    seed: int | None = None
    lock: str = ""
    """The digest of ``lock.json``; empty in older results, which do not hold it."""
    valid: bool
    metric: MetricName
    score: BoundedScore | None
    standard_error: BoundedScore | None = None
    search_score: BoundedScore | None = None
    reason: str | None = None
    node: int | None = None
    """The node that was chosen; None if no node was valid."""
    nodes: Counts = Counts(scored=0, valid=0)
    key: dict[str, str] | None = None
    conditions: ResultConditions | None = None
    spent: Spent | None = None
    replay: Repeats | None = None
    seconds: dict[str, float] = Field(default_factory=dict)

    @property
    def rows(self) -> int | None:
        """The number of rows that the score is a share of; None if unknown or not a share."""
        s, error = self.score, self.standard_error
        if not METRICS.find(self.metric).of_rows or s is None or not error:
            return None
        return round(s * (1 - s) / error**2)
