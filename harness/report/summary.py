"""A finished run in a few lines with commands to go on with; and single scores as text."""

from pathlib import Path
from statistics import mean, stdev
from typing import Any

from harness.base.commands import command
from harness.base.text import clean, quoted
from harness.report.baselines import baselines_of
from harness.report.stats.normalized import clip
from harness.report.usage import describe_spent
from sandboxes.registry import walls
from scorers.score import Score
from tasks.metrics import METRICS

Z = 1.96


def summarize(result: dict[str, Any]) -> str:
    """Return the text with which ``harness run`` ends."""
    run = result["run"]
    lines = [""]
    if result["valid"]:
        spread = spread_of_rows(result["score"], result["standard_error"], result["metric"])
        lines += [
            f"{result['metric']} {result['score']:.4f}{spread} on the hidden test split"
            + (" (95 %, from the number of test rows alone)" if spread else ""),
            f"  node {result['node']}, chosen by its {result['search_score']:.4f} "
            "on the search split, retrained once with a seed of its own",
        ]
        if parts := result.get("measures"):  # older results lack it
            said = (f"{name} {value:.4f}" for name, value in parts.items() if "." not in name)
            lines.append("  " + ", ".join(said))
        known = baselines_of(result)
        if known:
            lines.append("  without learning: " + known)
    else:
        lines.append(f"No valid submission: {result['reason']}.")
        lines += [quoted(result["message"], "  ")] if result["message"] else []
    counts = result["nodes"]
    lines += [
        f"  {counts['valid']} of {counts['scored']} nodes valid; "
        f"{result['seconds']['total']:.0f} s in all",
    ]
    if counts.get("ungraded"):
        lines.append(f"  {counts['ungraded']} not graded: the judge failed on them (harness show)")
    lines += [f"  {line}" for line in describe_spent(result.get("spent", {}))]
    replay = result.get("replay")
    if replay:
        lines.append(f"  a replay of {replay['of']}")
        if replay["other_scores"]:
            nodes = ", ".join(map(str, replay["other_scores"]))
            lines.append(f"  scored otherwise than when it was recorded: nodes {nodes}")
        if replay["diverged"]:
            lines.append(f"  IT WENT ON LIVE: {clean(replay['diverged'], 2000, keep='head')}")
    conditions = result["conditions"]
    if conditions and not conditions["isolated"]:
        lines.append("  NOT ISOLATED: this score never ranks beside isolated ones")
    if conditions and conditions["unenforced"] and conditions["isolated"]:
        lines.append(f"  walls not held here: {', '.join(conditions['unenforced'])}")
    lines += [
        "",
        f"run: {run}",
        "next:",
        "  # the tree; with --node N one submission, its evidence and log",
        "  " + command("show", run),
        "  # all runs beside each other",
        "  " + command("leaderboard", Path(run).parent),
        "  # the same submission before the judge again",
        "  " + command("rescore", run),
        "  # write one yourself",
        "  " + command("new", "my-idea", task=result["task"], profile=result["profile"]),
    ]
    return "\n".join(lines)


def spread_of_rows(score: float | None, error: float | None, metric: str) -> str:
    """Return the 95 % interval from the number of rows alone, as text; empty if it is unknown.

    The interval is cut to the metric's scale.
    """
    if score is None or not error:  # the error is 0 at a perfect score, where it says nothing
        return ""

    half = Z * error
    low, high = (clip(end, METRICS.find(metric).bounds) for end in (score - half, score + half))
    if (low, high) == (score - half, score + half):
        return f" ± {half:.4f}"
    return f" [{low:.4f}, {high:.4f}]"


def describe(score: Score) -> str:
    """Return one score as text: the number or why it is invalid, each audit with its power."""
    lines = []
    if score.valid and score.score is not None:
        spread = spread_of_rows(score.score, score.standard_error, score.metric)
        lines.append(
            f"{score.metric} {score.score:.4f}{spread} "
            f"on {score.rows:,} {score.conditions.split} rows"
        )
    else:
        measured = "" if score.measured is None else f" (measured: {score.measured:.4f})"
        lines.append(f"invalid: {score.reason}{measured}")
        if score.message:
            lines.append(quoted(score.message, "  "))
    for audit in score.audits:
        value = "–" if audit.value is None else f"{audit.value:.3g}"
        verdict = "passed" if audit.passed else "FAILED"
        lines.append(
            f"  {audit.name}: {verdict}, {value} (limit {audit.threshold:g}); {audit.power}"
        )
    if score.resolution is not None:
        lines.append(f"  audit resolution: {score.resolution:.2g} {score.metric}; less could pass")
    if score.strict is not None:
        lines.append(f"  strict: {score.strict}")
    if score.claim:
        claims = (
            f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in score.claim.items()
        )
        lines.append(f"  its own claims: {', '.join(claims)}")
    lines += [f"  {name}: {measured:.4f}" for name, measured in score.measures.items()]
    if score.companions:
        lines.append(f"  trained together with {len(score.companions)} others")
    spent = ", ".join(f"{name} {value:.1f} s" for name, value in score.seconds.items())
    lines.append(f"  time: {spent}")
    if score.peak_memory_mb is not None:
        lines.append(f"  peak memory: {score.peak_memory_mb:,} MiB")
    for gpu in score.conditions.gpus:
        lines.append(f"  gpu: {gpu.verdict}")
    where = walls(score.conditions.sandbox, isolated=score.conditions.isolated)
    missing = ", ".join(score.conditions.unenforced)
    lines.append(f"  sandbox: {where}" + (f"; not held here: {missing}" if missing else ""))
    return "\n".join(lines)


def describe_by_hand(scores: list[Score], beside: list[Score] | None) -> str:
    """Return what ``harness score`` prints: the first score in full, then the spread of all."""
    lines = [describe(scores[0])]
    if len(scores) > 1:
        lines.append(f"{len(scores)} times: {_spread_of(scores)}")
    if beside is not None:
        lines.append(f"baseline, the task's first design: {_spread_of(beside)}")
    return "\n".join(lines)


def _spread_of(scores: list[Score]) -> str:
    values = [s.score for s in scores if s.score is not None]
    raw = ", ".join(str(s.reason) if s.score is None else f"{s.score:.4f}" for s in scores)
    if len(values) < 2:
        return raw
    return f"{mean(values):.4f}, standard deviation {stdev(values):.4f} ({raw})"
