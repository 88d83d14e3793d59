"""The space of what a classical agent may submit: points, their number, and steps between them."""

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import combinations, product
from random import Random

from harness.base.errors import ConfigError
from harness.core.agent import Answer, Ask, Exhausted
from harness.core.tree import Node, Tree
from tasks.definition import Knob, Value
from tasks.spec import Task

SpacePoint = tuple[Value, ...]
"""A value for each knob, in the order of the knobs."""

LISTED = 1000
"""A knob with more values than this has its value drawn anew where others are all listed."""


@dataclass(frozen=True, slots=True)
class Space:
    """All points of the knobs that a task declares for a profile.

    The knobs of a task whose submissions are a sequence are its layers.
    """

    task: Task
    knobs: dict[str, Knob]

    @classmethod
    def of(cls, ask: Ask) -> "Space":
        """Return the space that a request is about. Raises ConfigError if there are no knobs."""
        knobs = ask.task.knobs(ask.profile)
        if not knobs:
            raise ConfigError(
                f"Task {ask.task.name} declares no knobs to search.", remedy="--agent reference"
            )
        return cls(ask.task, knobs)

    @property
    def is_sequence(self) -> bool:
        """Whether the knobs are layers that take the same values, so that two can be swapped."""
        layers = {knob.choices for knob in self.knobs.values()}
        return self.task.definition.sequence is not None and len(layers) == 1

    @property
    def size(self) -> int | None:
        """How many points there are; None if a knob takes real numbers."""
        values = [_values(knob) for knob in self.knobs.values()]
        return None if None in values else math.prod(len(v) for v in values if v is not None)

    def draw(self, rng: Random) -> SpacePoint:
        """Return a point, each knob drawn independently."""
        return tuple(draw(knob, rng) for knob in self.knobs.values())

    def draw_untried(self, tried: Set[SpacePoint], rng: Random) -> SpacePoint:
        """Return a point not in ``tried``. Raises Exhausted if a finite space has none left.

        It is the first draw unless that was tried; then each untried point is equally likely.
        """
        point = self.draw(rng)
        if self.size is None or point not in tried:
            return point
        if len(tried) >= self.size:
            raise Exhausted(f"All {self.size:,} points of the space have been tried.")
        # Counting past the tried ones takes as long when one point is left as when most are.
        place = rng.randrange(self.size - len(tried))
        for taken in sorted(self._place(one) for one in tried):
            place += taken <= place
        return self._at(place)

    def untried(self, tried: Set[SpacePoint]) -> Iterator[SpacePoint]:
        """Yield the points of a finite space that are not in ``tried``."""
        values = [_values(knob) or () for knob in self.knobs.values()]
        return (point for point in product(*values) if point not in tried)

    def mutations(self, point: SpacePoint, rng: Random) -> list[list[SpacePoint]]:
        """Return the points that are one mutation away, a list for each kind of mutation.

        Of a sequence: one layer changes; two layers are swapped; a run of equal layers grows by
        one, at the cost of the run beside it. Otherwise there is a kind for each knob, whose value
        changes. A knob of real numbers or very many integers has one new value, drawn by ``rng``.
        No list is empty, and none has ``point``; there are no lists if the space has one point.
        """
        at = range(len(point))
        kinds = [[_with(point, {i: other}) for other in self._others(i, point[i], rng)] for i in at]
        if self.is_sequence:
            swaps = [_with(point, {i: point[j], j: point[i]}) for i, j in combinations(at, 2)]
            beside = [(i, j) for i in at for j in (i - 1, i + 1) if j in at]
            grown = [_with(point, {j: point[i]}) for i, j in beside]
            kinds = [[one for kind in kinds for one in kind], swaps, grown]
        return [found for kind in kinds if (found := [one for one in kind if one != point])]

    def point(self, node: Node) -> SpacePoint | None:
        """Return the point that a node is at; None if it has no values, or not of this space."""
        given = node.knobs or {}
        if set(given) != set(self.knobs):
            return None
        allowed = all(knob.allows(given[name]) for name, knob in self.knobs.items())
        return tuple(given[name] for name in self.knobs) if allowed else None

    def tried(self, tree: Tree) -> set[SpacePoint]:
        """Return the points of all nodes, scored or not yet."""
        return {point for node in tree if (point := self.point(node)) is not None}

    def scored(self, tree: Tree) -> list[tuple[Node, SpacePoint]]:
        """Return the scored nodes, valid or not, with their points, in order of their numbers."""
        found = ((node, self.point(node)) for node in tree.scored())
        return [(node, point) for node, point in found if point is not None]

    def ranked(self, tree: Tree) -> list[tuple[Node, SpacePoint]]:
        """Return the valid nodes with their points, best first; on a tie the earlier."""
        found = ((node, self.point(node)) for node in tree.ranked(before=math.inf))
        return [(node, point) for node, point in found if point is not None]

    def answer(self, point: SpacePoint, how: str = "") -> Answer:
        """Return the submission at a point. Its note is the point and, if given, ``how``."""
        values = dict(zip(self.knobs, point, strict=True))
        if self.is_sequence:
            text = "".join(map(str, point))
        else:
            text = ", ".join(f"{name}={_short(value)}" for name, value in values.items())
        return Answer(
            self.task.render(values), note=f"{text}; {how}" if how else text, knobs=values
        )

    def step(self, parent: Node, point: SpacePoint) -> str:
        """Return how a point differs from a node: ``from node 7: layer 3 A to M``."""
        old = self.point(parent) or ()
        names = [f"layer {i + 1}" for i in range(len(old))] if self.is_sequence else self.knobs
        changes = [
            f"{name} {_short(was)} to {_short(now)}"
            for name, was, now in zip(names, old, point, strict=True)
            if was != now
        ]
        return f"from node {parent.number}: {', '.join(changes) or 'the same'}"

    def _others(self, place: int, value: Value, rng: Random) -> Sequence[Value]:
        """Return other values for a knob: all of them, or one drawn if they are too many."""
        knob = list(self.knobs.values())[place]
        values = _values(knob)
        if values is None or len(values) > LISTED:
            values = (draw(knob, rng),)
        return [other for other in values if other != value]

    def _place(self, point: SpacePoint) -> int:
        """Return the place of a point among all points of a finite space, as ``untried`` orders."""
        place = 0
        for knob, value in zip(self.knobs.values(), point, strict=True):
            values = _values(knob) or ()
            place = place * len(values) + values.index(value)
        return place

    def _at(self, place: int) -> SpacePoint:
        """Return the point at a place: the inverse of ``_place``."""
        point: list[Value] = []
        for knob in reversed(self.knobs.values()):
            values = _values(knob) or ()
            place, digit = divmod(place, len(values))
            point.append(values[digit])
        return tuple(reversed(point))


def draw(knob: Knob, rng: Random) -> Value:
    """Draw one value of a knob, log-uniformly if ``knob.log`` is set."""
    if knob.choices:
        return rng.choice(knob.choices)
    if knob.log:
        value = math.exp(rng.uniform(math.log(knob.low), math.log(knob.high)))
    else:
        value = rng.uniform(knob.low, knob.high)
    return round(value) if knob.integer else value


def _values(knob: Knob) -> Sequence[Value] | None:
    """Return all values of a knob in order; None if they are real numbers."""
    if knob.choices:
        return knob.choices
    return range(math.ceil(knob.low), math.floor(knob.high) + 1) if knob.integer else None


def _with(point: SpacePoint, changes: dict[int, Value]) -> SpacePoint:
    """Return a point with the values at some places replaced."""
    return tuple(changes.get(i, value) for i, value in enumerate(point))


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
