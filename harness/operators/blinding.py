"""Hides from a model what it may have read about: the names of a task and of its primitives.

A blind model is asked by the same operators. They are given a view of the request in which the task
is told as its ``[blind]`` says, and every earlier node is written in neutral names. What the model
answers is written in the task's own names before anybody else sees it. Which neutral name stands
for which primitive is drawn from the run's seed, and so is the same in a resumed or replayed run.

Notes and analyses are the model's own words: they are kept and shown as it wrote them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase

from harness.base.errors import ConfigError
from harness.base.seeds import stream
from harness.core.agent import Ask
from harness.core.tree import Node, Tree
from tasks import architecture
from tasks.spec import BLIND, Task

FIRST = "X"
"""Neutral names are Xa, Xb, …: architectures are read by the same rule in either language."""

NO_NAME = "?"
"""Stands before what is no neutral name. Else a model that writes the real ones would be heard."""


def neutral_names(task: Task, run_seed: int) -> dict[str, str]:
    """Return the neutral name of each primitive in a run. Raises ConfigError for over 26."""
    sequence = task.definition.sequence
    real = list(sequence.primitives) if sequence else []
    if len(real) > len(ascii_lowercase):
        raise ConfigError(f"Task {task.name} has more primitives than there are neutral names.")
    stream(run_seed, "blind").shuffle(real)
    return {name: f"{FIRST}{letter}" for name, letter in zip(real, ascii_lowercase, strict=False)}


@dataclass(frozen=True, slots=True)
class Blindfold:
    """Translates between a task and what a blind model is told of it.

    ``told`` is the task as it is told; ``names`` are neutral names by primitive, ``words`` what
    stands for other words in logs and messages.
    """

    told: Task
    names: Mapping[str, str]
    words: Mapping[str, str]

    @classmethod
    def of(cls, task: Task, profile: str, run_seed: int) -> "Blindfold":
        """Return the blindfold of a run. Raises ConfigError where the task cannot be blind."""
        names = neutral_names(task, run_seed)
        told = task.blinded(profile, sorted(names.values()))
        blind = task.definition.blind
        return cls(told, names, {**(blind.words if blind else {}), **names})

    def over(self, ask: Ask) -> Ask:
        """Return the request as the model is told it."""
        tree = Tree(maximize=ask.tree.maximize)
        for node in ask.tree:
            tree.add(self._node(node))
        return replace(
            ask,
            task=self.told,
            profile=BLIND,
            tree=tree,
            parents=tuple(map(self._node, ask.parents)),
            log=lambda number: self._text(ask.log(number)),
        )

    def real(self, files: Mapping[str, str]) -> dict[str, str]:
        """Return what a model wrote in the task's own names; what is none of its names stays so."""
        known = {neutral: name for name, neutral in self.names.items()}
        return {
            name: architecture.write(
                [known.get(word, NO_NAME + word) for word in architecture.words(text)]
            )
            for name, text in files.items()
        }

    def _neutral(self, text: str) -> str:
        """Return a submission as the model wrote it, in the form that ``real`` gives it."""
        return architecture.write(
            [self.names.get(word) or word.removeprefix(NO_NAME) for word in text.split()]
        )

    def _node(self, node: Node) -> Node:
        files = {name: self._neutral(text) for name, text in node.files.items()}
        return replace(node, files=files, knobs=None, message=self._message(node, files))

    def _message(self, node: Node, files: Mapping[str, str]) -> str:
        """Return what the judge would have said of a failed node in neutral names."""
        primitives, layers = sorted(self.names.values()), self.told.layers(BLIND)
        for name, text in files.items() if node.buggy else ():
            try:
                architecture.read(text, primitives, layers)
            except architecture.Misread as error:
                return f"{name}: {error}"
        return self._text(node.message)

    def _text(self, text: str) -> str:
        """Return a log or a message of the judge's, every word of ``words`` replaced."""
        return _pattern(tuple(self.words)).sub(lambda found: self.words[found[0]], text)


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])")
