"""Rebuilds the state of a run from the events of its journal and the submissions that they name.

The chain of a journal detects damage, not forgery: anybody who knows how it is made can write a
journal that holds any JSON. So its values are checked here, and submissions by their hashes.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.base.errors import ConfigError
from harness.base.files import read_plain
from harness.base.validation import sensible
from harness.core.budget import RunProgress
from harness.core.tree import Node, Tree
from harness.store.journal import Event

VERDICT = ("valid", "score", "reason", "message", "seconds")
"""What the journal holds of a score; the rest is in score.json."""

_NODE = TypeAdapter(Node)


@dataclass
class RunState:
    """The tree, and how far the run is. ``final`` is the summary of the test score.

    ``shown`` holds, for each node that is being written, the tree as it was when the node was
    chosen. The agent sees this tree, whether it is asked at once or again after a kill.
    """

    tree: Tree
    shown: dict[int, Tree] = field(default_factory=dict)
    exhausted: str = ""
    finalist: int | None = None
    final: dict[str, Any] | None = None

    def apply(self, event: Event, nodes: Path) -> None:
        """Advance by one event. ``nodes`` is the folder that holds the submissions.

        Raises ConfigError where a recorded submission is missing or was changed.
        """
        data = event.data
        match event.kind:
            case "chosen":
                parents, left = tuple(data["parents"]), data.get("left", {})
                self.tree.add(Node(data["node"], data["operator"], parents, left=left))
                self.shown[data["node"]] = self.tree.copy()
            case "written":
                files = load_files(nodes / f"{data['node']:04d}", data["files"])
                self.tree.update(
                    data["node"],
                    state="written",
                    files=files,
                    note=data["note"],
                    knobs=data["knobs"],
                )
                del self.shown[data["node"]]
                for number, text in data.get("analyses", {}).items():
                    self.tree.update(int(number), analysis=text)
            case "exhausted":
                self.exhausted = data["message"]
                self.tree.drop(data["node"])
                del self.shown[data["node"]]
            case "stopped":
                self.exhausted = data["message"]
            case "opened" | "scored" | "ungraded" | "final" if not sensible(
                data.get("queued_s", 0.0)
            ):
                raise ValueError("it waited for a GPU for a time that is no number")
            case "scored":
                self.tree.update(data["node"], state="scored", **{k: data[k] for k in VERDICT})
            case "ungraded":
                self.tree.update(data["node"], state="ungraded", message=data["message"])
            case "finalizing":
                self.finalist = data["node"]
            case "final":
                self.final = data
            case _:
                pass  # opened, evaluating, closed: only for people and listings


def rebuild(
    events: Iterable[Event],
    nodes: Path,
    *,
    maximize: bool,
    each: Callable[[RunState], object] = lambda state: None,
) -> RunState:
    """Return the state after all of ``events``. ``each`` is called with the state after each event.

    Raises ConfigError where they are not the events of a run, and as ``RunState.apply`` does.
    """
    state = RunState(Tree(maximize=maximize))
    try:
        for event in events:
            state.apply(event, nodes)
            each(state)
        _check(state)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"The journal of {nodes.parent} holds what no run writes.",
            cause=f"{type(error).__name__}: {str(error)[:300]}",
        ) from error
    return state


def _check(state: RunState) -> None:
    """Raise ValueError, or another error that odd values cause, if no run can have this state."""
    nodes, final = list(state.tree), state.final
    if state.finalist is not None or final is not None:
        chosen = [node for node in nodes if node.number == state.finalist]
        if not chosen:
            raise ValueError(f"node {state.finalist!r} was to be final, and there is none")
        nodes += [replace(chosen[0], **{k: final[k] for k in VERDICT})] if final else []
    for node in nodes:
        _NODE.validate_json(json.dumps(asdict(node)), strict=True)
        if not all(map(sensible, (node.number, node.seconds, node.score or 0.0))):
            raise ValueError(f"node {node.number} has a number that is none")
        if node.number < 0:
            raise ValueError(f"there is no node {node.number}")
        if any(parent not in state.tree or parent >= node.number for parent in node.parents):
            raise ValueError(f"node {node.number} comes before its own parent")


def load_files(folder: Path, hashes: dict[str, str]) -> dict[str, str]:
    """Read a submission back, checked against the journal's hashes. Raises ConfigError."""
    files: dict[str, str] = {}
    for name, expected in hashes.items():
        file = folder / name
        # A stranger's journal may name any path: files outside the folder are not read.
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise ConfigError(f"{name!r} in the journal is no file of a submission.")
        try:
            content = read_plain(file)
        except OSError as error:
            raise ConfigError(
                f"{file} is recorded in the journal but cannot be read.",
                cause=str(error),
                remedy="restore the file from a copy",
            ) from error
        if sha256(content).hexdigest() != expected:
            raise ConfigError(
                f"{file} is not what the journal recorded.",
                remedy="restore the file from a copy; the journal holds its SHA-256",
            )
        files[name] = content.decode()
    return files


def how_far(
    events: list[Event], tree: Tree, active_s: float, waiting_s: float = 0.0
) -> RunProgress:
    """Return how far a run is after ``active_s`` seconds of active time, without the retraining.

    ``waiting_s``: seconds that the evaluations under way have waited for a GPU so far.
    """
    until = [event.elapsed_s for event in events if event.kind == "finalizing"]
    opened = [event.data for event in events if event.kind == "opened"]
    ended = [event for event in events if event.kind in ("scored", "ungraded")]
    return RunProgress(
        steps=len(tree),
        active_s=until[0] if until else active_s,
        evaluated_s=sum(node.seconds for node in tree.scored()),
        queued_s=waiting_s + sum(event.data.get("queued_s", 0.0) for event in ended),
        queued_before_s=sum(data.get("queued_s", 0.0) for data in opened),
    )
