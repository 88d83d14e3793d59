"""A plain leaderboard: one table for each set of equal conditions, a row an agent x policy.

Numbers are the test split's. Invalid runs count against the valid submission rate and are
left out of the mean; unfinished and damaged runs are named apart.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.errors import ConfigError
from harness.report.baselines import NAMES, baselines
from harness.runs.rundir import Locked, Run


def build(paths: Iterable[Path]) -> dict[str, Any]:
    """Return the tables as JSON values: ``tables``, ``unfinished``, ``damaged``."""
    groups: dict[str, list[tuple[Run, dict[str, Any]]]] = defaultdict(list)
    unfinished: list[str] = []
    damaged: dict[str, str] = {}
    orphans: list[tuple[Run, dict[str, Any]]] = []
    for path in paths:
        try:
            run = Run.open(path)
            result = run.result
        except ConfigError as error:
            damaged[str(path)] = str(error)
            continue
        if result is None:
            unfinished.append(str(path))
        elif result["key"] is None:
            orphans.append((run, result))  # nothing valid: no conditions of a final score
        else:
            groups[_title(result)].append((run, result))
    for run, result in orphans:
        homes = [t for t, members in groups.items() if _fits(run, members[0][0])]
        groups[homes[0] if homes else _bare_title(run, result)].append((run, result))
    tables = [_table(title, members) for title, members in sorted(groups.items())]
    return {"format": 1, "tables": tables, "unfinished": unfinished, "damaged": damaged}


def _title(result: dict[str, Any]) -> str:
    return json.dumps([result["task"], result["profile"], result["key"]])


def _bare_title(run: Run, result: dict[str, Any]) -> str:
    lock = run.lock
    key = {"task": lock.task_hash, "data": lock.data_hash, "scorer": lock.scorer}
    return json.dumps([result["task"], result["profile"], key])


def _fits(run: Run, other: Run) -> bool:
    names = ("task_hash", "data_hash", "scorer", "sandbox", "versions", "hardware")
    return all(getattr(run.lock, n) == getattr(other.lock, n) for n in names)


def _table(title: str, members: list[tuple[Run, dict[str, Any]]]) -> dict[str, Any]:
    task, profile, key = json.loads(title)
    agents: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for _, result in members:
        agents[result["agent"], result["policy"]].append(result)
    lock = members[0][0].lock
    rows = [_row(agent, policy, results, lock) for (agent, policy), results in agents.items()]
    worse = -1.0 if lock.maximize else 1.0
    rows.sort(key=lambda r: (r["mean"] is None, worse * (r["mean"] or 0.0), r["agent"]))
    ranked = all(r["conditions"]["ranked"] for _, r in members if r["conditions"])
    return {
        "task": task,
        "profile": profile,
        "ranked": ranked,
        "key": key,
        "metric": members[0][1]["metric"],
        "direction": lock.direction,
        "baselines": baselines(members[0][0]),
        "rows": rows,
    }


def _row(agent: str, policy: str, results: list[dict[str, Any]], lock: Locked) -> dict[str, Any]:
    scores = [r["score"] for r in results if r["valid"]]
    return {
        "agent": agent,
        "policy": policy,
        "runs": len(results),
        "valid": len(scores),
        "valid_submission_rate": len(scores) / len(results),
        "mean": mean(scores) if scores else None,
        "stdev": stdev(scores) if len(scores) > 1 else None,
        "best": lock.best(scores, default=None),
        "scores": scores,
        "seconds": sum(r["seconds"]["total"] for r in results),
    }


def render(board: dict[str, Any]) -> None:
    """Print the tables on stdout."""
    console = Console(highlight=False)
    for table in board["tables"]:
        console.print(_drawn(table))
        key = table["key"]
        rest = ", ".join(f"{k} {v}" for k, v in key.items() if k not in ("isolation",))
        console.print(Text(f"  {key.get('isolation', '')}; {rest}", style="dim"))
        if not table["ranked"]:
            console.print(Text("  profile test is for test suites: not a ranking", style="yellow"))
        console.print()
    if len(board["tables"]) > 1:
        console.print("Different tables were made under different conditions and do not compare.")
    for path in board["unfinished"]:
        console.print(Text(f"not finished, left out: {path}"))
    for path, problem in board["damaged"].items():
        console.print(Text(f"damaged, left out: {path}: {problem.splitlines()[0]}", style="red"))
    if not board["tables"]:
        console.print("No finished runs here. Start one: harness run --task lra/listops")


def _drawn(table: dict[str, Any]) -> Table:
    drawn = Table(
        title=f"{table['task']} · {table['profile']} · test {table['metric']}", title_justify="left"
    )
    drawn.add_column("agent", overflow="fold")
    drawn.add_column("policy")
    for name in ("valid", "mean", "stdev", "best", "hours"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in table["rows"]:
        drawn.add_row(
            row["agent"],
            row["policy"],
            f"{row['valid']} of {row['runs']}",
            *(_number(row[n]) for n in ("mean", "stdev", "best")),
            f"{row['seconds'] / 3600:.2f}",
        )
    for name, value in table["baselines"].items():
        drawn.add_row(Text(NAMES[name], style="dim"), Text("–", style="dim"), "", _number(value))
    return drawn


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
