"""Finds the steps of searches: a parent, its child, what was changed, and the gain in score.

A step has exactly one parent, and a valid one. So drafts (no parent), crossovers (two parents) and
repairs (an invalid parent has no score to compare with) are no steps. A node whose source does not
parse, or is its parent's, is none either. A step from a parent that is an outlier on the bad side
of all valid scores of its task is a recovery from a poor start: nearly any change gains there. It
is counted, but is in no median.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Literal

from harness.base.errors import ConfigError
from harness.core.tree import Node, Tree
from harness.report.features.reading import changed, features_of
from harness.report.features.rules import Features
from harness.store.loading import load

FENCE = 1.5
"""A parent this many interquartile ranges below the lower quartile is a poor start (Tukey 1977)."""
FEWEST = 4
"""Number of valid scores that quartiles need; with fewer, no parent is a poor start."""

StepKind = Literal["step", "invalid", "recovery"]


@dataclass(frozen=True, slots=True)
class SearchStep:
    """One step. ``gain`` is positive where the score got better; None if the child is invalid."""

    node: int
    features: frozenset[str]
    gain: float | None
    kind: StepKind


@dataclass(frozen=True, slots=True)
class TaskSteps:
    """All steps of one task and profile. ``apart``: counts of nodes that are no step, by reason."""

    task: str
    steps: tuple[SearchStep, ...]
    apart: Mapping[str, int]


def steps_of(runs: Iterable[Path]) -> tuple[list[TaskSteps], dict[str, str]]:
    """Return the steps of runs by task and profile, and each unreadable run with the reason."""
    trees: dict[str, list[Tree]] = defaultdict(list)
    skipped: dict[str, str] = {}
    for path in runs:
        try:
            run, _, state = load(path)
        except ConfigError as error:
            skipped[str(path)] = str(error).splitlines()[0]
            continue
        trees[f"{run.asked.task} {run.asked.profile}"].append(state.tree)
    return [_steps(task, trees[task]) for task in sorted(trees)], skipped


def _steps(task: str, trees: Sequence[Tree]) -> TaskSteps:
    known = features_of(sorted({_source(n.files) for tree in trees for n in tree if n.files}))
    fence = _fence(trees)
    steps: list[SearchStep] = []
    apart: dict[str, int] = defaultdict(int)
    for tree in trees:
        for node in tree.scored():
            found = _step(tree, node, known, fence)
            if isinstance(found, SearchStep):
                steps.append(found)
            else:
                apart[found] += 1
    return TaskSteps(task, tuple(steps), dict(apart))


def _source(files: Mapping[str, str]) -> str:
    return "\n\n".join(files[name] for name in sorted(files) if name.endswith(".py"))


def _fence(trees: Sequence[Tree]) -> float | None:
    """Return the worst parent score of a step that is no recovery, turned so that more is better.

    None for too few scores.
    """
    values = [
        (n.score if t.maximize else -n.score) for t in trees for n in t if n.score is not None
    ]
    if len(values) < FEWEST:
        return None
    first, _, third = quantiles(values, n=4, method="inclusive")
    return first - FENCE * (third - first)


def _step(
    tree: Tree, node: Node, known: Mapping[str, Features | None], fence: float | None
) -> SearchStep | str:
    """Return the step that ends in a node, or why there is none."""
    if len(node.parents) != 1:
        return "crossovers" if node.parents else "drafts"
    parent = tree[node.parents[0]]
    if parent.score is None:
        return "repairs of an invalid parent"
    before, after = known.get(_source(parent.files)), known.get(_source(node.files))
    if before is None or after is None:
        return "sources that do not parse"
    what = changed(before, after)
    if not what:
        return "no change"
    sign = 1.0 if tree.maximize else -1.0
    gain = None if node.score is None else sign * (node.score - parent.score)
    kind: StepKind = "step"
    if gain is None:
        kind = "invalid"
    elif fence is not None and sign * parent.score < fence:
        kind = "recovery"
    return SearchStep(node.number, what, gain, kind)
