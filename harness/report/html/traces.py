"""Reads a run over time for the curves: one point per scored node, in order of scoring.

Only the journal's ``scored`` lines are read: of 240,000 nodes, nothing more can be read in
seconds. The journal's chain is not checked here but in ``nodes``, which shows single nodes.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from harness.base.errors import ConfigError
from harness.base.validation import sensible
from harness.report.drawing.curves import Point
from harness.store.index import IndexEntry
from harness.store.journal import unchecked
from harness.store.tape import Tape


@dataclass(frozen=True, slots=True)
class Trace:
    """One run over time. ``problem`` says what could not be read."""

    entry: IndexEntry
    points: tuple[Point, ...]
    problem: str = ""


def trace(entry: IndexEntry) -> Trace:
    """Read a run's points. An unreadable journal sets ``problem`` and raises nothing."""
    try:
        points = [_point(event) for event in unchecked(Path(entry.path) / "events.jsonl", "scored")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return Trace(entry, (), f"its journal cannot be read: {type(error).__name__}")
    return Trace(entry, tuple(points))


def _point(event: dict[str, object]) -> Point:
    node, elapsed, score = event["node"], event["elapsed_s"], event["score"]
    if not isinstance(node, int) or not sensible(elapsed):
        raise TypeError(node)
    return Point(node, float(score) if sensible(score) else None, float(elapsed))  # type: ignore[arg-type]


def with_calls(found: Trace) -> Trace:
    """Add the tokens and dollars of model calls. A replayed call counts what it first cost."""
    tokens: dict[int, int] = defaultdict(int)
    dollars: dict[int, float | None] = defaultdict(float)
    try:
        for record in Tape(Path(found.entry.path)):
            usage = record.reply.usage if record.reply else record.worst
            tokens[record.node] += usage.prompt_tokens + usage.output_tokens
            cost = record.dollars if record.reply else record.worst_dollars
            before = dollars[record.node]
            dollars[record.node] = None if before is None or cost is None else before + cost
    except (ConfigError, ValueError, RecursionError) as error:
        return replace(found, problem=f"its calls cannot be read: {str(error)[:200]}")
    if not tokens:
        return found
    if not all(sensible(v) for v in (*tokens.values(), *(d or 0.0 for d in dollars.values()))):
        return replace(found, problem="its calls used what no call uses")
    spent, cost_so_far, points = 0, 0.0, []
    priced = True
    for point in found.points:
        spent += tokens[point.node]
        cost = dollars[point.node]
        priced = priced and cost is not None
        cost_so_far += cost or 0.0
        points.append(replace(point, tokens=spent, dollars=cost_so_far if priced else None))
    return replace(found, points=tuple(points))
