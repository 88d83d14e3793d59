"""Agents that do what a test needs, and report which tree they were shown."""

import hashlib
import time
from collections.abc import Callable

from harness.agents.baselines import RandomAgent
from harness.base.seeds import stream
from harness.core.agent import Answer, Ask
from harness.core.tree import Tree


def digest(tree: Tree) -> str:
    """Return a hash of all that a tree holds."""
    return hashlib.sha256(repr(list(tree)).encode()).hexdigest()


class Slow:
    """Waits up to 0.15 s, as for a language model; one answer in four is broken.

    The answer depends on the node's number alone. ``prompt`` is a hash of the tree it was shown.
    """

    name = "slow"
    trusted = True

    def write(self, ask: Ask) -> Answer:
        ask.cancel.wait(stream(ask.seed, "seconds").uniform(0.0, 0.15))
        designs = ask.task.designs()
        return Answer(designs[ask.node % len(designs)].files, prompt=digest(ask.tree))


class Scripted:
    """Calls ``script`` with each request, then answers with random knobs.

    ``spans`` holds, for each request, the node and the monotonic times of request and answer.
    """

    name = "scripted"
    trusted = True

    def __init__(self, script: Callable[[Ask], None]) -> None:
        self.script = script
        self.spans: list[tuple[int, float, float]] = []

    def write(self, ask: Ask) -> Answer:
        asked, shown = time.monotonic(), digest(ask.tree)
        try:
            self.script(ask)
        finally:
            self.spans.append((ask.node, asked, time.monotonic()))
        assert digest(ask.tree) == shown, "what an agent looks at changed under it"
        answer = RandomAgent().write(ask)
        return Answer(answer.files, note=answer.note, knobs=answer.knobs, prompt=shown)
