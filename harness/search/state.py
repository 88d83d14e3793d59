"""Events in, state out: what a run knows, rebuilt from its journal and nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.search.journal import Event
from harness.search.tree import Node, Tree


@dataclass
class State:
    """The tree, and how far the run is. ``final`` is the summary of the test score."""

    tree: Tree
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
                self.tree.add(Node(data["node"], data["operator"], tuple(data["parents"])))
            case "written":
                files = load_files(nodes / f"{data['node']:04d}", data["files"])
                self.tree.update(
                    data["node"],
                    state="written",
                    files=files,
                    note=data["note"],
                    knobs=data["knobs"],
                )
            case "exhausted":
                self.exhausted = data["message"]
                self.tree.drop(data["node"])
            case "scored":
                fields = ("valid", "score", "reason", "message", "seconds")
                self.tree.update(data["node"], state="scored", **{k: data[k] for k in fields})
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
        try:
            content = file.read_bytes()
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
