"""The list of tasks and each task in full, for ``harness tasks``, with what a guess scores."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.report.terminal import draw, stdout
from tasks.definition import Definition, Knob, Shortcut
from tasks.metrics import METRICS
from tasks.spec import Broken, Task


def in_list(task: Task) -> dict[str, Any]:
    """Return the row of a task in the list of all, as JSON values."""
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
    """Return all that ``harness tasks show`` prints about a task, as JSON values."""
    d = task.definition
    shown = {"about", "ranked", "device", "data", "settings", "limits"}
    return {
        **in_list(task),
        "files": list(d.files),
        "references": [reference.model_dump() for reference in d.references],
        "designs": [design.model_dump(include={"name", "summary"}) for design in task.designs()],
        "bounds": {name: str(knob) for name, knob in _bounds(task).items()},
        "profiles": {
            name: {**profile.model_dump(include=shown), "hash": task.hash(name)}
            for name, profile in d.profiles.items()
        },
    }


def _bounds(task: Task) -> dict[str, Knob]:
    return task.definition.bounds if task.configurable else {}


def as_json(broken: Broken) -> dict[str, str]:
    """Return a folder whose task is invalid, and why, as JSON values."""
    error = broken.error
    return {"folder": str(broken.folder), "message": error.message, "cause": error.cause}


def render(tasks: Iterable[Task], broken: Iterable[Broken]) -> None:
    """Print the listing on stdout, and below it what is wrong with folders of invalid tasks."""
    table = Table(box=None, pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("chance", justify="right", no_wrap=True)
    table.add_column("shortcut", justify="right", no_wrap=True)
    table.add_column("")
    for task in tasks:
        d, best = task.definition, _best(task.definition)
        remark = best.name if best else ""
        if d.stands_in_for:
            remark = f"stands in for {d.stands_in_for}"
        table.add_row(
            Text(task.name),
            _number(d.chance),
            _number(best.value if best else None),
            Text(remark),
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


def render_one(task: Task) -> None:
    """Print one task on stdout."""
    d = task.definition
    say = Console(highlight=False, soft_wrap=True).print
    say(Text(f"{task.name}: {d.title}", style="bold"))
    if d.stands_in_for:
        say(Text(f"stands in for {d.stands_in_for}: its scores never compare with that one's"))
    unit = METRICS.find(d.metric).unit
    measure = f"{d.metric} ({unit})" if unit else d.metric
    say(Text(f"variant {task.variant}, {measure}, {d.direction}"))
    say(Text(f"an agent writes {', '.join(d.files)}; folder {task.folder}"))
    say()
    lines = [("chance", d.chance, "", "")] if d.chance is not None else []
    lines += [(s.name, s.value, "shortcut", s.source) for s in d.shortcuts]
    lines += [(r.name, r.value, r.note, r.source) for r in d.references]
    for name, value, note, source in lines:
        words = "; ".join(part for part in (note, source) if part)
        say(Text(f"  {value:.4f}  {name}" + (f" ({words})" if words else "")))
    say()
    for name, p in d.profiles.items():
        cap = p.limits.max_parameters
        size = f"{cap:,} parameters, " if cap else ""
        unranked = "" if p.ranked else "; never ranked"
        say(Text(f"  {name}: {p.about}"))
        # Our own training has no limit of time: how fast a machine is must not decide.
        time = f"at most {size}{p.limits.train_s:g} s to train, " if task.runs_code else ""
        say(Text(f"    {time}device {p.device}{unranked}"))
        say(Text(f"    data: {', '.join(f'{k} {v}' for k, v in p.data.items())}"))
    say()
    say(Text("reference designs:"))
    for design in task.designs():
        say(Text(f"  {design.name}: {design.summary}"))
    if _bounds(task):
        say(Text("HYPERPARAMETERS may set:"))
        for name, knob in _bounds(task).items():
            say(Text(f"  {name}: {knob}"))
    say(Text(f"what an agent is told: harness tasks show {task.name} --profile smoke"))


def _best(definition: Definition) -> Shortcut | None:
    choose = max if definition.direction == "maximize" else min
    return choose(definition.shortcuts, key=lambda s: s.value, default=None)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}".rstrip("0").ljust(4, "0")
