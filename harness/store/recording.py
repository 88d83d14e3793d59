"""A recorded run that a replay repeats: what was chosen, shown to the agent and answered.

The agent that replays it is in ``harness.agents.replay``.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.base.commands import command, quote
from harness.base.errors import ConfigError
from harness.core.asked import REPLAY, Asked
from harness.core.tree import Node, Tree
from harness.core.writing import Writing
from harness.store.loading import load
from harness.store.rundir import Run
from harness.store.tape import Tape

SAME = ("task", "profile", "policy", "settings", "seed", "data")
"""The fields in which a replay's request must equal its run's: other values give other prompts."""


@dataclass
class Recording:
    """A run that is replayed. ``live``: where the replay diverges, go on with the real model."""

    run: Run
    agent: str
    """The agent that wrote the run; if that was a replay, the agent that wrote the original run."""
    writing: Writing
    """How that agent's model was called."""
    tree: Tree
    ended: str
    """Why its search ended early (agent exhausted, budget too small for a call, stopped), or ""."""
    shown: dict[int, Tree] = field(default_factory=dict)
    """The tree as it stood when each node was chosen."""
    live: bool = False
    diverged: str = ""
    """Where and how the replay diverged; empty while it follows the recording."""

    @classmethod
    def open(cls, text: str, *, live: bool = False) -> "Recording":
        """Read a run by its path, or by its bare name under runs/. Raises ConfigError."""
        path = Path(text)
        if not path.exists() and len(path.parts) == 1:
            path = Path("runs") / path
        shown: dict[int, Tree] = {}
        real = Path(os.path.realpath(path))  # resolve() raises where links lead in a circle
        run, _, state = load(real, each=lambda state: shown.update(state.shown))
        origin = _origin(run)
        writing = origin.asked.writing
        return cls(run, origin.asked.agent, writing, state.tree, state.exhausted, shown, live)

    @property
    def tape(self) -> Tape:
        """The recorded calls."""
        return Tape(self.run.path)

    @property
    def has_calls(self) -> bool:
        """Whether its agent called a model."""
        return next(self.run.path.glob("nodes/*/calls/[0-9]*.json"), None) is not None

    def check(self, asked: Asked) -> None:
        """Raise ConfigError naming the fields of ``SAME`` that differ from the recorded request."""
        other = self.run.asked
        differs = [name for name in SAME if getattr(asked, name) != getattr(other, name)]
        if differs:
            raise ConfigError(
                f"A replay of {self.run.path} must be asked the same as it was.",
                cause="; ".join(
                    f"{name}: there {getattr(other, name)!r}, here {getattr(asked, name)!r}"
                    for name in differs
                ),
                remedy=_command(other, self.run.path),
            )

    def node(self, number: int) -> Node | None:
        """Return a recorded node; None after a divergence, or if the node was never written."""
        if self.diverged or number not in self.tree or self.tree[number].state == "chosen":
            return None
        return self.tree[number]

    def to_json(self, tree: Tree) -> dict[str, Any]:
        """Return the repeated run, where the replay diverged, and which nodes' scores differ."""
        both = [(n, self.tree[n.number]) for n in tree.scored() if self.node(n.number) is not None]
        return {
            "of": str(self.run.path),
            "diverged": self.diverged,
            "other_scores": [
                now.number
                for now, then in both
                if then.state == "scored" and now.score != then.score
            ],
        }


def _origin(run: Run) -> Run:
    seen = {run.path}
    while (name := run.asked.agent).startswith(REPLAY):
        run = Run.open(Path(name.removeprefix(REPLAY)))
        if run.path in seen:
            raise ConfigError(f"{run.path} is a replay of itself.")
        seen.add(run.path)
    return run


def _command(asked: Asked, path: Path) -> str:
    """Return the command that repeats a run."""
    same = {name: getattr(asked, name) for name in ("task", "profile", "policy", "seed")}
    line = command("run", agent=f"{REPLAY}{path}", **same, data=asked.data.get("source"))
    return " ".join([line, *(f"--set {quote(setting)}" for setting in asked.settings)])
