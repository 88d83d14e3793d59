"""Texts and JSON about a sweep: the table of ``--dry-run``, its progress, and how it ended.

Nothing is printed here: ``harness.cli.sweep`` does that.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.base.commands import command
from harness.base.durations import short
from harness.base.numbers import counted, money
from harness.sweeps.estimate import Estimate, Total, wall_s
from harness.sweeps.plan import Plan, by_count
from harness.sweeps.sweep import Sweep, SweepRunState

ENDED: tuple[SweepRunState, ...] = ("done", "invalid")
"""The states of runs that another sweep of the same suite leaves as they are."""

EXITS: tuple[tuple[int, tuple[SweepRunState, ...]], ...] = (
    (130, ("interrupted", "waiting", "running", "elsewhere")),
    (3, ("failed",)),
    (4, ("paused",)),
    (2, ("refused",)),
    (1, ("unaffordable", "invalid")),
)
"""Exit codes, each with the states that cause it, the worst first."""


def exit_code(sweep: Sweep) -> int:
    """Return the exit code of the worst state; 0 if every run is valid."""
    counts = sweep.counts
    return next((code for code, states in EXITS if any(counts[s] for s in states)), 0)


def status_line(sweep: Sweep) -> str:
    """Return how far a sweep is, on one line."""
    counts = sweep.counts
    parts = [f"{n} {state}" for state, n in sorted(counts.items()) if n]
    money = ""
    unpriced = any(slot.unpriced for slot in sweep.slots)
    if sweep.spent or sweep.max_dollars is not None:
        of = "" if sweep.max_dollars is None else f" of ${sweep.max_dollars:,.2f}"
        money = f"; {'≥ ' * unpriced}${sweep.spent:,.2f}{of} spent"
    elif unpriced:
        money = "; unknown dollars spent"
    return f"{len(sweep.slots)} runs: {', '.join(parts)}{money}"


def opening(sweep: Sweep) -> list[str]:
    """Return the lines to print first: the status, and the dollars that a run may spend."""
    text = [f"{status_line(sweep)}; {sweep.concurrent} at once"]
    if sweep.share is not None:
        text.append(f"a run without a limit of its own may spend at most ${sweep.share:.2f}")
    return text


def summary(sweep: Sweep, again: str) -> list[str]:
    """Return lines on how a sweep ended; ``again`` is the command that continues it."""
    text = [status_line(sweep)]
    for state in ("refused", "failed", "interrupted", "paused", "unaffordable"):
        causes = Counter(s.message for s in sweep.slots if s.state == state).most_common()
        for message, n in causes[:5]:
            first = next(s for s in sweep.slots if (s.state, s.message) == (state, message))
            text.append(f"  {n} {state}: {message or 'no word'} (first: {first.path.name})")
        if len(causes) > 5:
            text.append(f"  … and {len(causes) - 5} more causes")
    if any(slot.state not in ENDED for slot in sweep.slots):
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
        "unpriced_runs": sum(slot.unpriced for slot in sweep.slots),
        "max_dollars": sweep.max_dollars,
        "runs": [
            {
                "run": str(slot.path),
                "state": slot.state,
                "message": slot.message,
                "tries": slot.tries,
                "dollars": None if slot.unpriced else slot.spent,
            }
            for slot in sweep.slots
        ],
    }


def totals(estimates: Sequence[Estimate]) -> tuple[dict[str, Total], Total]:
    """Return the sums by agent, policy and literature, and the sum of all."""
    parts: dict[str, Total] = {}
    whole = Total()
    for one in estimates:
        asked = one.run.asked
        literature = " + literature" if asked.writing.literature else ""
        blind = ", blind" if asked.writing.blind else ""
        name = f"{asked.agent} {asked.policy}{literature}{blind}"
        parts.setdefault(name, Total()).add(one)
        whole.add(one)
    return parts, whole


def plan_as_json(plan: Plan, concurrent: int, gpus: int) -> dict[str, Any]:
    """Return the plan as plain values."""
    parts, whole = totals(plan.estimates)
    return {
        "format": 1,
        "suite": plan.suite.name,
        "folder": str(plan.folder),
        "concurrent": concurrent,
        "wall_hours": wall_s(plan.estimates, concurrent, gpus) / 3600,
        "total": whole.as_json(),
        "agents": [{"agent": name, **part.as_json()} for name, part in parts.items()],
        "stated": list(dict.fromkeys(one.stated for one in plan.estimates if one.stated)),
        "missing": dict(by_count(plan.missing)),
        "runs": [one.run.name for one in plan.estimates],
    }


def plan_table(plan: Plan, concurrent: int, gpus: int, max_dollars: float | None) -> list[str]:
    """Return the table of ``--dry-run``: a line for each agent, the sum, and the basis of both."""
    parts, whole = totals(plan.estimates)
    size = max(map(len, parts))
    head = f"{'agent':{size}}  {'runs':>6} {'steps':>9} {'h/run':>6} {'hours':>8} {'GPU-h':>8}"
    text = [f"{head} {'Mtok in':>8} {'out':>7} {'dollars':>10}"]
    for name, part in [*parts.items(), ("all", whole)]:
        hours, gpu_hours = part.seconds / 3600, part.gpu_seconds / 3600
        least = bool(part.at_least)
        text.append(
            f"{name:{size}}  {part.runs:>6,} {part.steps:>9,} {_sum(hours / part.runs, least):>6} "
            f"{_sum(hours, least):>8} {_sum(gpu_hours):>8} "
            f"{_tokens(part, part.tokens_in):>8} {_tokens(part, part.tokens_out):>7} "
            f"{_dollars(part):>10}"
        )
    wall = short(wall_s(plan.estimates, concurrent, gpus))
    about = "at least" if whole.at_least else "about"
    text += ["", f"{whole.runs:,} runs, {concurrent} at once: {about} {wall} by the clock"]
    text += _cost(whole)
    if max_dollars is not None and whole.dollars > max_dollars:
        text.append(f"that is more than --max-dollars {max_dollars:,.2f}: not all would be started")
    text += _rests_on(plan, whole)
    return text


def _sum(value: float, least: bool = False) -> str:
    """Return a sum as text; ``least``: it is a lower bound. A small sum is not shown as 0."""
    text = f"{value:,.0f}" if value >= 100 else money(value)
    return f"≥ {text}" if least else text


def _tokens(total: Total, count: int) -> str:
    if total.unguessed and not count:
        return "unknown"
    return _sum(count / 1e6, bool(total.unguessed))


def _dollars(total: Total) -> str:
    if total.partial and not total.dollars:
        return "unknown"
    return _sum(total.dollars, total.partial)


def _cost(whole: Total) -> list[str]:
    if not whole.partial:
        return [f"about ${_sum(whole.dollars)}"]
    text = [f"at least ${_sum(whole.dollars)}" if whole.dollars else "dollars: unknown"]
    if whole.unpriced:
        n = len(whole.unpriced)
        names = ", ".join(sorted(whole.unpriced))
        text[0] += f"; {counted(n, 'model')} of unknown price: {names}"
    if whole.unguessed:
        names = ", ".join(sorted(whole.unguessed))
        text.append(
            f"the suite guesses no tokens for {names}: tokens, dollars, the time to write are "
            f"unknown; [assume.policies.{min(whole.unguessed)}] says tokens_in, tokens_out, write_s"
        )
    return text


def _rests_on(plan: Plan, whole: Total) -> list[str]:
    text = []
    if whole.measured:
        text.append(f"seconds of {whole.measured:,} runs as measured in earlier runs")
    text += dict.fromkeys(one.stated for one in plan.estimates if one.stated)
    if whole.measured < whole.runs:
        text.append(f"the rest by what [assume] in {plan.file} says")
    for why, n in by_count(plan.missing):
        text.append(f"{n:,} runs cannot be made: {why}")
    for agent, offer in plan.offers.items():
        if offer.retires and not offer.obstacle:
            text.append(f"{agent} retires: {offer.retires}")
    return text
