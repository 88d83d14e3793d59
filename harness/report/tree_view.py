"""What ``harness show`` prints: a run's tree, or one node with code, score, evidence and log."""

import difflib
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text
from rich.tree import Tree as Drawn

from harness.base.commands import command
from harness.base.errors import ConfigError
from harness.base.files import read_json
from harness.base.text import clean
from harness.core.asked import Asked
from harness.core.tree import Node
from harness.operators.blinding import neutral_names
from harness.report.summary import describe
from harness.report.terminal import stdout
from harness.report.usage import describe_spent, spent_by
from harness.store.loading import load
from harness.store.reading import read_as
from harness.store.state import RunState
from scorers.score import Score
from tasks.spec import find_task

LOG_LINES = 40


def as_json(path: Path, number: int | None) -> dict[str, Any]:
    """Return the tree, or one node with its score, as JSON values."""
    run, events, state = load(path)
    if number is None:
        return {
            "format": 1,
            "run": str(run.path),
            "asked": run.asked.model_dump(mode="json"),
            "nodes": [_summary(n) for n in state.tree],
            "final": state.final,
            "finalist": state.finalist,
            "result": run.result,
            "spent": spent_by(run, events, state.tree),
        }
    node = _node(state, number, path)
    file = run.node_dir(number) / "score.json"
    score = read_json(file) if file.exists() else None
    return {"format": 1, **_summary(node), "files": node.files, "score_record": score}


def show_tree(path: Path) -> None:
    """Print the tree with scores, the final score, and what the run used."""
    run, events, state = load(path)
    console = stdout()
    asked, best = run.asked, state.tree.best()
    drawn = Drawn(
        Text(
            f"{asked.task} {asked.profile}, {asked.agent} x {asked.policy}, seed {asked.seed}: "
            f"{len(state.tree.scored())} of {asked.steps} nodes"
        )
    )
    branches: dict[int, Drawn] = {}
    for node in state.tree:
        parent = branches[node.parents[0]] if node.parents else drawn
        branches[node.number] = parent.add(_line(node, is_best=node is best))
    console.print(drawn)
    if asked.writing.blind:
        _say(console, f"blind: the model was told other names: {_neutral_names(asked)}")
    if state.final is not None:
        verdict = state.final["score"]
        shown = f"{verdict:.4f}" if verdict is not None else f"invalid: {state.final['reason']}"
        _say(console, f"final: node {state.finalist} retrained, hidden test split: {shown}")
    for line in describe_spent(spent_by(run, events, state.tree)):
        _say(console, line)
    if state.final is None and run.result is None and not run.is_held():
        _say(console, f"not finished: {command('resume', run.path)}")


def show_node(path: Path, number: int, *, whole: bool) -> None:
    """Print one node: score and evidence, diff or files, the end of its log."""
    run, _, state = load(path)
    node = _node(state, number, path)
    console = stdout()
    console.print(_line(node, is_best=node is state.tree.best()), soft_wrap=True)
    file = run.node_dir(number) / "score.json"
    if file.exists():
        _say(console, describe(read_as(Score, file)))
    elif node.state == "ungraded":
        _say(console, f"not graded: {clean(node.message)}")
    for name, text in node.files.items():
        parent = state.tree[node.parents[0]] if node.parents else None
        _say(console, f"\n{run.node_dir(number) / name}", "bold")
        if whole or parent is None:
            _code(console, clean(text, 1 << 20), "python")
        else:
            before = parent.files.get(name, "").splitlines()
            lines = difflib.unified_diff(
                before, text.splitlines(), f"node {parent.number}", f"node {number}", lineterm=""
            )
            _code(console, clean("\n".join(lines), 1 << 20) or "(no difference)", "diff")
    tail = run.log(number)[-65536:].splitlines()[-LOG_LINES:]
    if tail:
        _say(console, f"\n{run.node_dir(number) / 'stdout.log'} (last {len(tail)} lines)", "bold")
        _code(console, clean("\n".join(tail), 65536), "text")


def _neutral_names(asked: Asked) -> str:
    try:
        names = neutral_names(find_task(asked.task), asked.seed)
    except ConfigError:
        return "the task is not here"
    return ", ".join(f"{neutral} for {name}" for name, neutral in names.items())


def _say(console: Console, text: str, style: str = "") -> None:
    """Print text without line breaks of our own, so that a path can be copied in one piece."""
    console.print(Text(text, style=style), soft_wrap=True)


def _code(console: Console, text: str, language: str) -> None:
    """Print code: coloured on a terminal, elsewhere unchanged, tabs included."""
    if console.is_terminal:
        coloured = Syntax("", language, background_color="default").highlight(text)
        coloured.rstrip()
        console.print(coloured, soft_wrap=True)
    else:
        console.file.write(text + "\n" * (not text.endswith("\n")))


def _node(state: RunState, number: int, path: Path) -> Node:
    if number not in state.tree:
        raise ConfigError(
            f"{path} has no node {number}.",
            remedy=f"0 to {len(state.tree) - 1}" if len(state.tree) else command("resume", path),
        )
    return state.tree[number]


def _line(node: Node, *, is_best: bool) -> Text:
    if node.score is not None:
        outcome = Text(f"{node.score:.4f}", style="bold green" if is_best else "green")
    elif node.buggy:
        outcome = Text(f"invalid: {node.reason}", style="red")
    else:
        outcome = Text(node.state, style="cyan")
    mark = "  ◀ best" if is_best else ""
    note = clean(node.note, 100, keep="head")
    return Text.assemble(
        f"{node.number} {node.operator}  ", outcome, mark, Text(f"  {note}", "dim")
    )


def _summary(node: Node) -> dict[str, Any]:
    return {
        "node": node.number,
        "operator": node.operator,
        "parents": list(node.parents),
        "state": node.state,
        "note": node.note,
        "knobs": node.knobs,
        "valid": node.valid,
        "score": node.score,
        "reason": node.reason,
        "message": node.message,
        "seconds": node.seconds,
    }
