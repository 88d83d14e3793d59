"""replay:RUN: a recorded run again, token for token, at no cost.

Each node is chosen as it was, and its agent is shown what it was shown: the recorded scores, logs
and budgets as they stood then, never those of the evaluations done anew (clocks and GPUs would
change a digit, and with it every later prompt). So the questions are the same unless prompts,
settings or the harness changed, whatever the number of slots was or is. An agent without a model
is replaced by the files it wrote.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.agents.base import Agent, Answer, Ask, Exhausted
from harness.agents.tape import Divergence, Tape
from harness.commands import command, quote
from harness.errors import ConfigError
from harness.search.tree import Node, Tree

if TYPE_CHECKING:  # a run knows agents
    from harness.agents.writing import Writing
    from harness.runs.rundir import Asked, Run

PREFIX = "replay:"

SAME = ("task", "profile", "policy", "settings", "seed", "data")
"""What a replay must be asked in common with its run: other values give other questions."""


@dataclass
class Recording:
    """A run that is repeated. ``live`` allows to go on with the real model where it differs."""

    run: "Run"
    agent: str
    """Who wrote it; where it is itself a replay, who wrote what it repeats."""
    writing: "Writing"
    """How its model was asked."""
    tree: Tree
    ended: str
    """Why its agent had nothing more; empty where the search ended otherwise."""
    shown: dict[int, Tree] = field(default_factory=dict)
    """The tree as it stood when each node was chosen."""
    live: bool = False
    diverged: str = ""
    """Where and how it was left; empty while it is followed."""

    @classmethod
    def open(cls, text: str, *, live: bool = False) -> "Recording":
        """Read a run by its path, or by its bare name under runs/. Raises ConfigError."""
        from harness.runs.rundir import Run
        from harness.runs.unchanged import refuse_other_lock
        from harness.search.journal import read
        from harness.search.state import State

        path = Path(text)
        if not path.exists() and len(path.parts) == 1:
            path = Path("runs") / path
        run = Run.open(Path(os.path.realpath(path)))  # noqa: PTH118 (a circle of links raises)
        state, shown = State(Tree(maximize=run.lock.maximize)), {}
        events = read(run.path / "events.jsonl")[0]
        refuse_other_lock(run, events)
        for event in events:
            state.apply(event, run.path / "nodes")
            if event.kind == "chosen":
                shown[event.data["node"]] = state.tree.copy()
        origin = _origin(run)
        writing = origin.asked.writing
        return cls(run, origin.asked.agent, writing, state.tree, state.exhausted, shown, live)

    @property
    def tape(self) -> Tape:
        """Its calls."""
        return Tape(self.run.path)

    @property
    def has_calls(self) -> bool:
        """Whether its agent asked a model."""
        return next(self.run.path.glob("nodes/*/calls/[0-9]*.json"), None) is not None

    def check(self, asked: "Asked") -> None:
        """Raise ConfigError naming what is asked otherwise than in the recorded run."""
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
        """Return what a node was, or None if it has none to follow: left, or never written."""
        if self.diverged or number not in self.tree or self.tree[number].state == "chosen":
            return None
        return self.tree[number]

    def to_json(self, tree: Tree) -> dict[str, Any]:
        """Return what is repeated, where it was left, and which nodes now have other scores."""
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


class ReplayAgent:
    """Writes what a recorded run's agent wrote: by asking that agent again, or from its files.

    Never trusted: a run folder may come from anywhere.
    """

    trusted = False

    def __init__(self, recording: Recording, agent: Agent | None) -> None:
        if recording.live and agent is None:
            raise ConfigError(
                f"{recording.run.path} was written by {recording.agent}, which has no model: "
                "there is nothing to go on with.",
                remedy=f"--agent {recording.agent}, or no --on-divergence",
            )
        self.name = f"{PREFIX}{recording.run.path}"
        self.recording = recording
        self.agent = agent

    def write(self, ask: Ask) -> Answer:
        """Answer as recorded. Raises Exhausted at its end, Divergence, and what the agent does."""
        node = self.recording.node(ask.node)
        if node is None:
            if self.recording.live and self.agent is not None:
                return self.agent.write(ask)
            raise Exhausted(
                self.recording.ended or f"The recorded run ends here, after {ask.node} nodes."
            )
        if self.agent is None:
            return Answer(node.files, note=node.note, knobs=node.knobs)
        then = self.recording.shown[ask.node]
        parents = tuple(then[number] for number in node.parents)
        log = self.recording.run.log
        answer = self.agent.write(replace(ask, tree=then, parents=parents, log=log))
        if dict(answer.files) != node.files and not self.recording.diverged:
            self._differ(ask.node)
        return answer

    def _differ(self, number: int) -> None:
        """Leave the recording, or raise Divergence: the same answers were read in another way."""
        run = self.recording.run
        message = (
            f"The replay of {run.path} differs at node {number}: the answers gave other files."
        )
        if not self.recording.live:
            raise Divergence(
                message,
                cause="this version of the harness reads answers in another way",
                remedy=f"version {run.lock.harness}, which recorded them",
            )
        self.recording.diverged = message


def make_replay(
    text: str, make: Callable[[str, "Writing", bool], Agent], *, live: bool = False
) -> ReplayAgent:
    """Return the agent that repeats a run; ``make`` makes one by name, settings and ``live``."""
    recording = Recording.open(text, live=live)
    if not recording.has_calls:
        return ReplayAgent(recording, None)
    return ReplayAgent(recording, make(recording.agent, recording.writing, live))


def _origin(run: "Run") -> "Run":
    from harness.runs.rundir import Run

    seen = {run.path}
    while (name := run.asked.agent).startswith(PREFIX):
        run = Run.open(Path(name.removeprefix(PREFIX)))
        if run.path in seen:
            raise ConfigError(f"{run.path} is a replay of itself.")
        seen.add(run.path)
    return run


def _command(asked: "Asked", path: Path) -> str:
    """Return the command that repeats a run."""
    same = {name: getattr(asked, name) for name in ("task", "profile", "policy", "seed")}
    line = command("run", agent=f"{PREFIX}{path}", **same, data=asked.data.get("source"))
    return " ".join([line, *(f"--set {quote(setting)}" for setting in asked.settings)])
