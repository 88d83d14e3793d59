"""Events in, state out: what a run knows, rebuilt from its journal and nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.base.errors import ConfigError
from harness.base.files import read_plain
from harness.core.budget import Progress
from harness.core.tree import Node, Tree
from harness.store.journal import Event


@dataclass
class State:
    """The tree, and how far the run is. ``final`` is the summary of the test score.

    ``shown`` holds, for each node that is being written, the tree as it was when the node was
    chosen: what its agent sees, be it asked at once or again after a kill.
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
            case "scored":
                fields = ("valid", "score", "reason", "message", "seconds")
                self.tree.update(data["node"], state="scored", **{k: data[k] for k in fields})
            case "ungraded":
                self.tree.update(data["node"], state="ungraded", message=data["message"])
            case "finalizing":
                self.finalist = data["node"]
            case "final":
                self.final = data
            case _:
                pass  # for people and listings: opened, evaluating, closed


def rebuild(events: Iterable[Event], nodes: Path, *, maximize: bool) -> State:
    """Return the state after all of ``events``."""
    state = State(Tree(maximize=maximize))
    for event in events:
        state.apply(event, nodes)
    return state


def load_files(folder: Path, hashes: dict[str, str]) -> dict[str, str]:
    """Read a submission back, checked against the journal's hashes. Raises ConfigError."""
    files: dict[str, str] = {}
    for name, expected in hashes.items():
        file = folder / name
        # A stranger's journal may name anything: what is outside is not read.
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


def how_far(events: list[Event], tree: Tree, active_s: float) -> Progress:
    """Return how far a run is that was active for so long, final retraining left out."""
    until = [event.elapsed_s for event in events if event.kind == "finalizing"]
    opened = [event.data for event in events if event.kind == "opened"]
    return Progress(
        steps=len(tree),
        active_s=until[0] if until else active_s,
        evaluated_s=sum(node.seconds for node in tree.scored()),
        queued_s=sum(data.get("queued_s", 0.0) for data in opened),
    )
