"""The normalised score of AIRS-Bench and AIRA-Design, which call it the march of nines.

    NS = (phi(s) - phi(worst)) / (phi(best) - phi(worst)),   phi(s) = -log10 |s - optimum|

0 is the worst mark, 1 the published best; 0.9 → 0.99 counts as much as 0.99 → 0.999. The papers
take as worst the worst score of any agent in the table, so that a new agent moves everybody; here
both marks are frozen for each task and profile in ``marks.toml``, each with its source.
"""

import math
import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

NEAREST = 1e-3
"""A perfect score would be infinitely good: nothing counts as nearer to the optimum than this."""

Metric = Literal["accuracy", "bits_per_byte"]
OPTIMUM: dict[str, float] = {"accuracy": 1.0, "bits_per_byte": 0.0}
FLOOR: dict[str, float] = {"accuracy": 0.0, "bits_per_byte": 8.0}
"""What an invalid run counts as where runs must be averaged: nothing right, or bytes at random."""

BOUNDS: dict[str, tuple[float, float]] = {"accuracy": (0.0, 1.0), "bits_per_byte": (0.0, math.inf)}
"""Between which any score lies, and so the mean of many."""


def clip(value: float, within: tuple[float, float]) -> float:
    """Return the value, or the end of the scale that it is beyond."""
    return min(max(value, within[0]), within[1])


class Marks(BaseModel):
    """The frozen constants of one task and profile. ``disputed`` says why one is in doubt."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    task: str
    profile: str
    worst: float
    best: float
    human: bool = False
    """Whether ``best`` is a published result of people: then it is a player of the Elo table."""
    source: str
    disputed: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1]
    marks: tuple[Marks, ...] = Field(default=())


@cache
def _all() -> dict[tuple[str, str], Marks]:
    text = (Path(__file__).parent / "marks.toml").read_text()
    return {(m.task, m.profile): m for m in _File.model_validate(tomllib.loads(text)).marks}


def marks_of(task: str, profile: str) -> Marks | None:
    """Return the constants of a task; its configurable variant has the same. None if none."""
    return _all().get((task.removesuffix("-configurable"), profile))


def normalized(score: float | None, marks: Marks, metric: str) -> float:
    """Return the normalised score. An invalid run (None) has 0, and nothing has less."""
    if score is None:
        return 0.0

    def phi(s: float) -> float:
        return -math.log10(max(NEAREST, abs(s - OPTIMUM[metric])))

    worst = phi(marks.worst)
    return max(0.0, (phi(score) - worst) / (phi(marks.best) - worst))
