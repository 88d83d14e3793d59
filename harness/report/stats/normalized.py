"""The normalised score of AIRS-Bench and AIRA-Design, which call it the march of nines.

    NS = (phi(s) - phi(worst)) / (phi(best) - phi(worst)),   phi(s) = -log10 |s - optimum|

0 is the worst mark, 1 the published best; 0.9 → 0.99 counts as much as 0.99 → 0.999. In the papers
"worst" is the worst score of any agent in the table, so a new agent changes every agent's score.
Here both marks are fixed for each task and profile in its ``task.toml``, each with its source.
"""

import math
from dataclasses import dataclass

from tasks.definition import Definition
from tasks.metrics import METRICS

NEAREST = 1e-3
"""The smallest distance to the optimum that counts; a perfect score would be infinite."""


def clip(value: float, within: tuple[float, float]) -> float:
    """Return the value, cut to the range ``within``."""
    return min(max(value, within[0]), within[1])


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """The ``Marks`` between which a task's normalised score of one profile is measured."""

    task: str
    profile: str
    worst: float
    best: float
    human: bool = False
    source: str = ""
    disputed: str = ""


def scale_of(definition: Definition, profile: str) -> ScoreScale | None:
    """Return a profile's scale, or None without marks. A configurable variant has the same."""
    marks = next((m for m in definition.marks if m.profile == profile), None)
    return None if marks is None else ScoreScale(definition.name, **marks.model_dump())


def normalized(score: float | None, scale: ScoreScale, metric: str) -> float:
    """Return the normalised score, at least 0. An invalid run (None) has 0."""
    if score is None:
        return 0.0

    optimum = METRICS.find(metric).optimum

    def phi(s: float) -> float:
        return -math.log10(max(NEAREST, abs(s - optimum)))

    worst = phi(scale.worst)
    return max(0.0, (phi(score) - worst) / (phi(scale.best) - worst))
