"""The tasks as a reader meets them: what is asked, and what a guess scores beside it."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.report.terminal import draw, stdout
from tasks.definition import Profile
from tasks.spec import Broken, Task


def listing(tasks: Iterable[Task]) -> list[dict[str, Any]]:
    """Return a row a task, as JSON values."""
    return [_row(task) for task in tasks]


def _row(task: Task) -> dict[str, Any]:
    d = task.definition
    return {
        "name": task.name,
        "title": d.title,
        "variant": task.variant,
        "metric": d.metric,
        "direction": d.direction,
        "chance": d.chance,
        "shortcuts": [shortcut.model_dump() for shortcut in d.shortcuts],
        "stands_in_for": d.stands_in_for,
        "profiles": list(d.profiles),
        "folder": str(task.folder),
    }


def describe(task: Task) -> dict[str, Any]:
    """Return all that ``harness tasks show`` says of a task, as JSON values."""
    d = task.definition
    return {
        **_row(task),
        "files": list(d.files),
        "references": [reference.model_dump() for reference in d.references],
        "designs": [{"name": x.name, "summary": x.summary} for x in task.designs()],
        "bounds": {name: str(knob) for name, knob in d.bounds.items()} if task.configurable else {},
        "profiles": {name: _profile(task, name, p) for name, p in d.profiles.items()},
    }


def _profile(task: Task, name: str, profile: Profile) -> dict[str, Any]:
    return {
        "about": profile.about,
        "ranked": profile.ranked,
        "device": profile.device,
        "data": profile.data,
        "settings": profile.settings,
        "limits": profile.limits.model_dump(),
        "hash": task.hash(name),
    }


def as_json(broken: Broken) -> dict[str, str]:
    """Return a folder that holds no task, and why, as JSON values."""
    error = broken.error
    return {"folder": str(broken.folder), "message": error.message, "cause": error.cause}


def render(rows: list[dict[str, Any]], broken: Iterable[Broken] = ()) -> None:
    """Print the listing on stdout, and below it what is wrong with the folders that are no task."""
    table = Table(box=None, pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("chance", justify="right", no_wrap=True)
    table.add_column("shortcut", justify="right", no_wrap=True)
    table.add_column("")
    for row in rows:
        best = _best(row["shortcuts"], row["direction"])
        table.add_row(
            Text(row["name"]),
            _number(row["chance"]),
            _number(best["value"] if best else None),
            Text(_remark(row, best)),
        )
    console = stdout()
    draw(console, table)
    console.print("chance: a blind guess; shortcut: a guess that does not do the task, paper sizes")
    console.print("All of one: harness tasks show NAME. Its data: harness prepare NAME")
    say = Console(highlight=False, soft_wrap=True).print
    for one in broken:
        say(Text(f"\nbroken: {one.error.message}", style="bold"))
        for line in one.error.cause.splitlines():
            say(Text(f"  {line}"))


def render_one(found: dict[str, Any]) -> None:
    """Print one task on stdout."""
    say = Console(highlight=False, soft_wrap=True).print
    say(Text(f"{found['name']}: {found['title']}", style="bold"))
    if found["stands_in_for"]:
        say(
            Text(
                f"stands in for {found['stands_in_for']}: its scores never compare with that one's"
            )
        )
    say(Text(f"variant {found['variant']}, {found['metric']}, {found['direction']}"))
    say(Text(f"an agent writes {', '.join(found['files'])}; folder {found['folder']}"))
    say()
    lines = [("chance", found["chance"], "", "")] if found["chance"] is not None else []
    lines += [(s["name"], s["value"], "shortcut", s["source"]) for s in found["shortcuts"]]
    lines += [(r["name"], r["value"], r["note"], r["source"]) for r in found["references"]]
    for name, value, note, source in lines:
        words = "; ".join(part for part in (note, source) if part)
        say(Text(f"  {value:.4f}  {name}" + (f" ({words})" if words else "")))
    say()
    for name, p in found["profiles"].items():
        limits = p["limits"]
        cap = limits["max_parameters"]
        size = f"{cap:,} parameters, " if cap else ""
        unranked = "" if p["ranked"] else "; never ranked"
        say(Text(f"  {name}: {p['about']}"))
        bounds = f"{size}{limits['train_s']:g} s to train, device {p['device']}{unranked}"
        say(Text(f"    at most {bounds}"))
        say(Text(f"    data: {', '.join(f'{k} {v}' for k, v in p['data'].items())}"))
    say()
    say(Text("reference designs:"))
    for design in found["designs"]:
        say(Text(f"  {design['name']}: {design['summary']}"))
    if found["bounds"]:
        say(Text("HYPERPARAMETERS may set:"))
        for name, knob in found["bounds"].items():
            say(Text(f"  {name}: {knob}"))
    say(Text(f"what an agent is told: harness tasks show {found['name']} --profile smoke"))


def _best(shortcuts: list[dict[str, Any]], direction: str) -> dict[str, Any] | None:
    choose = max if direction == "maximize" else min
    return choose(shortcuts, key=lambda s: float(s["value"]), default=None)


def _remark(row: dict[str, Any], best: dict[str, Any] | None) -> str:
    if row["stands_in_for"]:
        return f"stands in for {row['stands_in_for']}"
    return str(best["name"]) if best else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}".rstrip("0").ljust(4, "0")
