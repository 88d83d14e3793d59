"""What a score is a number of, by name. Reports take all they need to know of a metric from here.

A new one is an entry here, or one that a package adds (docs/guides/extending.md).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from harness.base.registry import Registry, is_no

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. ``direction``: which way is better.

    ``floor`` is what an invalid run counts as where runs must be averaged; ``optimum`` what no
    score can be better than. Any score, and so the mean of many, lies from ``least`` to ``most``.
    ``unit`` says what it is a number of. ``of_rows``: it is the share of rows answered right,
    so that its standard error tells how many there were.
    """

    direction: Direction
    floor: float
    optimum: float
    least: float = -math.inf
    most: float = math.inf
    unit: str = ""
    of_rows: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which any score lies."""
        return self.least, self.most


def _fault(_name: str, metric: Any) -> str:  # noqa: ANN401 (whatever it is)
    if fault := is_no(Metric, metric):
        return fault
    if not metric.least <= metric.floor <= metric.most:
        return f"its floor, {metric.floor:g}, is not from {metric.least:g} to {metric.most:g}"
    if not math.isfinite(metric.floor) or not math.isfinite(metric.optimum):
        return "its floor and its optimum are to be finite"
    return ""


METRICS: Registry[Metric] = Registry(
    "metric",
    "harness.metrics",
    {
        "accuracy": Metric(
            "maximize",
            floor=0.0,
            optimum=1.0,
            least=0.0,
            most=1.0,
            unit="share of rows",
            of_rows=True,
        ),
        # An invalid model of text is as good as bytes at random: 8 bits each.
        "bits_per_byte": Metric(
            "minimize", floor=8.0, optimum=0.0, least=0.0, unit="bits per byte of text"
        ),
    },
    _fault,
)

MetricName = Annotated[str, AfterValidator(METRICS.known)]
"""The name of a metric that is known here."""
