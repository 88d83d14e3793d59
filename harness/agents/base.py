"""The seam between search and whoever writes code: asked for an operator, answers with files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from harness.search.tree import Node, Operator, Tree
from tasks.spec import Task, Value


class Exhausted(Exception):
    """The agent has nothing more to offer: the run ends well with what it has."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: which operator on which parents, and all that an agent may know.

    ``node`` is the number the answer will have. ``seed`` belongs to this node alone.
    ``tree`` holds scores of the search split only.
    """

    task: Task
    profile: str
    operator: Operator
    node: int
    parents: tuple[Node, ...]
    tree: Tree
    seed: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The files of one submission. ``prompt`` and ``completion`` are kept where there are any."""

    files: Mapping[str, str]
    note: str = ""
    knobs: dict[str, Value] | None = field(default=None)
    prompt: str = ""
    completion: str = ""


class Agent(Protocol):
    """Writes submissions."""

    name: str
    trusted: bool
    """True where its code ships with the harness and may run without isolation."""

    def write(self, ask: Ask) -> Answer:
        """Answer one request. Raises Exhausted, ProviderError."""
        ...
