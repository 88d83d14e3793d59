"""A sweep in words: the table of ``--dry-run``, how far it is, and how it ended."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from harness.commands import command
from harness.report.watching import short
from harness.sweeps.estimate import Estimate, Total, wall_s
from harness.sweeps.plan import Plan, by_count
from harness.sweeps.sweep import State, Sweep

NEXT: tuple[State, ...] = (
    "waiting",
    "running",
    "elsewhere",
    "refused",
    "failed",
    "interrupted",
    "paused",
    "unaffordable",
)
"""The states of runs that another sweep of the same suite goes on with."""

EXITS: tuple[tuple[int, tuple[State, ...]], ...] = (
    (130, ("interrupted", "waiting", "running", "elsewhere")),
    (3, ("failed",)),
    (4, ("paused",)),
    (2, ("refused",)),
    (1, ("unaffordable", "invalid")),
)
"""Exit code and the states that cause it, the worst first."""


def exit_code(sweep: Sweep) -> int:
    """Return the exit code of the worst that happened; 0 if every run is valid."""
    counts = sweep.counts
    return next((code for code, states in EXITS if any(counts[s] for s in states)), 0)


def status_line(sweep: Sweep) -> str:
    """Return how far a sweep is, on one line."""
    counts = sweep.counts
    parts = [f"{n} {state}" for state, n in sorted(counts.items()) if n]
    money = ""
    if sweep.spent or sweep.max_dollars is not None:
        of = "" if sweep.max_dollars is None else f" of ${sweep.max_dollars:,.2f}"
        money = f"; ${sweep.spent:,.2f}{of} spent"
    return f"{len(sweep.slots)} runs: {', '.join(parts)}{money}"


def opening(sweep: Sweep) -> list[str]:
    """Return what is said before the first run: what is done already, and each one's share."""
    text = [f"{status_line(sweep)}; {sweep.concurrent} at once"]
    if sweep.share is not None:
        text.append(f"a run without a limit of its own may spend at most ${sweep.share:.2f}")
    return text


def summary(sweep: Sweep, again: str) -> list[str]:
    """Return how a sweep ended and how to go on; ``again`` is the command."""
    text = [status_line(sweep)]
    for state in ("refused", "failed", "interrupted", "paused", "unaffordable"):
        causes = by_count(s.message for s in sweep.slots if s.state == state)
        for message, n in causes[:5]:
            first = next(s for s in sweep.slots if (s.state, s.message) == (state, message))
            text.append(f"  {n} {state}: {message or 'no word'} (first: {first.path.name})")
        if len(causes) > 5:
            text.append(f"  … and {len(causes) - 5} more causes")
    if any(sweep.counts[state] for state in NEXT):
        text.append(f"What each run said: {sweep.folder / 'logs'}. Go on with: {again}")
    text.append(command("leaderboard", sweep.folder))
    return text


def as_json(sweep: Sweep) -> dict[str, Any]:
    """Return how a sweep ended, as plain values."""
    return {
        "format": 1,
        "folder": str(sweep.folder),
        "counts": dict(sweep.counts),
        "spent_dollars": sweep.spent,
        "max_dollars": sweep.max_dollars,
        "runs": [
            {
                "run": str(slot.path),
                "state": slot.state,
                "message": slot.message,
                "tries": slot.tries,
                "dollars": slot.spent,
            }
            for slot in sweep.slots
        ],
    }


def totals(estimates: Sequence[Estimate]) -> tuple[dict[tuple[str, ...], Total], Total]:
    """Return the sums by agent, policy and literature, and the sum of all."""
    parts: dict[tuple[str, ...], Total] = {}
    whole = Total()
    for one in estimates:
        more = ("+ literature",) if one.run.group.literature else ()
        parts.setdefault((one.run.agent, one.run.policy, *more), Total()).add(one)
        whole.add(one)
    return parts, whole


def plan_as_json(plan: Plan, concurrent: int) -> dict[str, Any]:
    """Return the plan as plain values."""
    parts, whole = totals(plan.estimates)
    return {
        "format": 1,
        "suite": plan.suite.name,
        "folder": str(plan.folder),
        "concurrent": concurrent,
        "wall_hours": wall_s(plan.estimates, concurrent) / 3600,
        "total": whole.as_json(),
        "agents": [{"agent": " ".join(key), **part.as_json()} for key, part in parts.items()],
        "missing": dict(by_count(chain.from_iterable(plan.missing.values()))),
        "runs": [one.run.name for one in plan.estimates],
    }


def plan_table(plan: Plan, concurrent: int, max_dollars: float | None) -> list[str]:
    """Return the table of ``--dry-run``: a line an agent, the sum, and what it rests on."""
    parts, whole = totals(plan.estimates)
    size = max(len(" ".join(key)) for key in parts)
    head = f"{'agent':{size}}  {'runs':>6} {'steps':>9} {'h/run':>6} {'hours':>8} {'GPU-h':>8}"
    text = [f"{head} {'Mtok in':>8} {'out':>7} {'dollars':>10}"]
    for name, part in [*((" ".join(k), p) for k, p in parts.items()), ("all", whole)]:
        hours = part.seconds / 3600
        text.append(
            f"{name:{size}}  {part.runs:>6,} {part.steps:>9,} {hours / part.runs:>6.2f} "
            f"{hours:>8,.0f} {part.gpu_seconds / 3600:>8,.0f} {part.tokens_in / 1e6:>8,.1f} "
            f"{part.tokens_out / 1e6:>7,.1f} {_dollars(part):>10}"
        )
    wall = short(wall_s(plan.estimates, concurrent))
    text += ["", f"{whole.runs:,} runs, {concurrent} at once: about {wall} by the clock"]
    text.append(_cost(whole))
    if max_dollars is not None and whole.dollars > max_dollars:
        text.append(f"that is more than --max-dollars {max_dollars:,.2f}: not all would be started")
    text += _rests_on(plan, whole)
    return text


def _dollars(total: Total) -> str:
    if not total.unpriced:
        return f"{total.dollars:,.0f}" if total.dollars >= 100 else f"{total.dollars:,.2f}"
    return f"≥ {total.dollars:,.0f}" if total.dollars else "unknown"


def _cost(whole: Total) -> str:
    if not whole.unpriced:
        return f"about ${whole.dollars:,.2f}"
    n = len(whole.unpriced)
    models = f"{n} model{'s' * (n > 1)}"
    return f"at least ${whole.dollars:,.2f}; {models} of unknown price: " + ", ".join(
        sorted(whole.unpriced)
    )


def _rests_on(plan: Plan, whole: Total) -> list[str]:
    text = []
    if whole.measured:
        text.append(f"seconds of {whole.measured:,} runs as measured in earlier runs")
    if whole.measured < whole.runs:
        text.append(f"the rest by what [assume] in {plan.file} says")
    for why, n in by_count(chain.from_iterable(plan.missing.values())):
        text.append(f"{n:,} runs cannot be made: {why}")
    for agent, offer in plan.offers.items():
        if offer.retires and not offer.obstacle:
            text.append(f"{agent} retires: {offer.retires}")
    return text
