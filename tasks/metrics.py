"""Metrics by name: direction, range, unit. Reports take all that they know of a metric from here.

A new metric is an entry here, or one that a package adds (docs/guides/extending.md). The judge
measures them (``scorers``).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from harness.base.registry import Registry, type_fault

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. ``direction``: which way is better.

    ``floor`` is the score that an invalid run counts as when runs are averaged; ``optimum`` is the
    best possible score. Any score, and so the mean of many, lies from ``least`` to ``most``.
    ``unit`` is the unit of a score. ``of_rows``: the score is the share of rows answered correctly,
    so that the number of rows follows from its standard error.
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
        """The lowest and the highest possible score."""
        return self.least, self.most


def _fault(_name: str, metric: Any) -> str:  # noqa: ANN401 (whatever it is)
    if fault := type_fault(Metric, metric):
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
        "token_accuracy": Metric(
            "maximize", floor=0.0, optimum=1.0, least=0.0, most=1.0, unit="share of tokens"
        ),
        # An invalid language model counts as random bytes: 8 bits each.
        "bits_per_byte": Metric(
            "minimize", floor=8.0, optimum=0.0, least=0.0, unit="bits per byte of text"
        ),
        # An invalid model counts as a uniform guess among GPT-2's 50,257 tokens, the most in use.
        "cross_entropy": Metric(
            "minimize", floor=10.825, optimum=0.0, least=0.0, unit="nats a token"
        ),
    },
    _fault,
)

MetricName = Annotated[str, AfterValidator(METRICS.known)]
"""The name of a metric in ``METRICS``."""
