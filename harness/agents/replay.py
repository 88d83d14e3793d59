"""replay:RUN: repeats a recorded run, token for token, at no cost.

Each node is chosen as in the recorded run, and its agent gets the same request: the recorded
scores, logs and budgets as they were then, never those of the new evaluations (clocks and GPUs
would change a digit, and with it every later prompt). So the prompts are the same, for any number
of slots then and now, unless templates, settings or the harness changed. If the recorded agent has
no model, it is not called: the files that it wrote are used.
"""

from collections.abc import Callable
from dataclasses import replace

from harness.base.errors import ConfigError
from harness.core.agent import Agent, Answer, Ask, Exhausted
from harness.core.asked import REPLAY
from harness.core.writing import Writing
from harness.store.recording import Recording
from harness.store.tape import Divergence


class ReplayAgent:
    """Writes what a recorded run's agent wrote: calls that agent again, or takes its files.

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
        self.name = f"{REPLAY}{recording.run.path}"
        self.recording = recording
        self.agent = agent

    def write(self, ask: Ask) -> Answer:
        """Answer as recorded. Raises Exhausted at the end, Divergence, and the agent's errors."""
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
        """Stop following the recording, or raise Divergence: the same answers gave other files."""
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
    text: str, make: Callable[[str, Writing, bool], Agent], *, live: bool = False
) -> ReplayAgent:
    """Return the agent that repeats a run; ``make`` makes its agent by name, settings, ``live``."""
    recording = Recording.open(text, live=live)
    asks = recording.has_calls
    agent = make(recording.agent, recording.writing, live) if asks else None
    return ReplayAgent(recording, agent)
