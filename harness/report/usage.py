"""What a run used, as in result.json and as text. Unknown prices stay unknown, never 0."""

from typing import Any

from harness.agents.calls import add_to_budget
from harness.base.durations import short
from harness.base.numbers import counted
from harness.core.budget import TOKENS_IN, Budget
from harness.core.tree import Tree
from harness.store.journal import Event
from harness.store.rundir import Run
from harness.store.state import how_far
from harness.store.tape import Tape


def spent_by(run: Run, events: list[Event], tree: Tree) -> dict[str, Any]:
    """Return what a run has used so far, finished or not, as in result.json."""
    result = run.result
    if result is not None:
        spent: dict[str, Any] = result.get("spent", {})  # older results lack it
        return spent
    budget = Budget(run.asked.limits, workers=run.asked.workers, gpus=run.lock.gpus)
    for record in Tape(run.path):
        add_to_budget(record, budget)
    active_s = events[-1].elapsed_s if events else 0.0
    return budget.to_json(how_far(events, tree, active_s))


def describe_spent(spent: dict[str, Any]) -> list[str]:
    """Return a line for each kind of call made, one for GPU-hours and one for waits for GPUs."""
    if not spent:
        return []
    lines = []
    for kind in ("model", "replayed", "lost"):
        tally = spent[kind]
        if not tally["calls"]:
            continue
        cached = f" ({tally['cached_tokens']:,} cached)" if tally["cached_tokens"] else ""
        tokens_in = sum(tally[name] for name in TOKENS_IN)
        line = (
            f"{kind}: {counted(tally['calls'], 'call')}, {tokens_in:,} tokens in{cached}, "
            f"{tally['output_tokens']:,} out, "
        )
        if kind == "model":
            line += f"{_cost(tally)}, {tally['seconds']:.0f} s"
            line += f", waited {spent['waited_s']:.0f} s" if spent["waited_s"] >= 1 else ""
            if estimated := tally.get("estimated_calls"):  # older results lack it
                line += f"; tokens of {counted(estimated, 'call')} are an upper bound, by bytes"
        elif kind == "replayed":
            line += f"$0 now, {_cost(tally)} when recorded"
        else:
            line += f"{_cost(tally)} at worst, counted as spent"
        lines.append(line)
    if spent["gpu_hours"]:
        lines.append(f"GPU-hours: {spent['gpu_hours']:.3g}, final retraining not included")
    if (queued_s := spent.get("queued_s", 0.0)) >= 1:
        what = "GPUs" if spent["gpu_hours"] else "their turn"
        lines.append(f"waited for {what}: {short(queued_s)}, all nodes together")
    return lines


def _cost(tally: dict[str, Any]) -> str:
    unpriced, known = tally["unpriced_calls"], tally["dollars_known"]
    if not unpriced:
        return f"${known:.4g}" if known < 1 else f"${known:,.2f}"
    if unpriced == tally["calls"]:
        return "price unknown"
    return f"${known:,.2f} and {counted(unpriced, 'call')} of unknown price"
