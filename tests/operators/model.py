"""A model that answers from a list, and nodes and requests for tests of operators.

No provider is called.
"""

from dataclasses import dataclass, field

from harness.core.agent import Ask
from harness.core.model import Prompt, Reply, Stop, Usage
from harness.core.tree import Node, Tree
from tasks.spec import find_task

GOOD = 'A plain idea.\n\n```python model.py\nimport torch\n\nVALUE = "{}"\n```\n'


@dataclass
class Scripted:
    """Gives its replies in turn, each a text or a (text, stop); records what it was asked."""

    replies: list[str | tuple[str, Stop]]
    room: int = 10**9
    """How many characters a prompt may have."""
    asked: list[tuple[str, Prompt]] = field(default_factory=list)

    def complete(self, prompt: Prompt, *, purpose: str) -> Reply:
        assert self.fits(prompt), "a prompt was sent that does not fit"
        assert all(turn.text.strip() for turn in prompt.turns), "providers refuse empty turns"
        assert [t.role for t in prompt.turns] == ["user", "assistant", "user"][: len(prompt.turns)]
        self.asked.append((purpose, prompt))
        reply = self.replies.pop(0)
        text, stop = reply if isinstance(reply, tuple) else (reply, "end")
        return Reply(text, stop, Usage(1, 0, 0, 1, 0), "scripted", 0.0)

    def fits(self, prompt: Prompt) -> bool:
        return size(prompt) <= self.room


def size(prompt: Prompt) -> int:
    return len(prompt.system) + sum(len(turn.text) for turn in prompt.turns)


def scored(number: int, operator: str = "draft", parents: tuple[int, ...] = (), **more) -> Node:
    more.setdefault("valid", "score" in more)
    more.setdefault("files", {"model.py": f"NODE = {number}\n"})
    more.setdefault("note", f"idea of node {number}")
    return Node(number, operator, parents, state="scored", **more)


def ask(model, operator="draft", parents=(), nodes=(), task="toy", profile="test", **more) -> Ask:
    """Return a request for the node that comes after ``nodes``; ``parents`` are node numbers."""
    chosen = find_task(task)
    tree = Tree(maximize=chosen.definition.direction == "maximize")
    for node in nodes:
        tree.add(node)
    return Ask(
        task=chosen, profile=profile, operator=operator, node=len(nodes), tree=tree, seed=7,
        parents=tuple(tree[p] for p in parents), model=model, **more,
    )  # fmt: skip
