"""The base class of policies: parameters are declared once, set with --set, always in range."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin
from typing import get_type_hints as type_hints

from harness.base.errors import ConfigError
from harness.base.validation import did_you_mean
from harness.core.policy import Decision
from harness.core.tree import Tree

T = TypeVar("T")


def parameter(default: T, about: str, *, low: float = -math.inf, high: float = math.inf) -> T:
    """Declare a policy's parameter: its default, what it does, and the range it must lie in."""
    metadata = {"about": about, "low": low, "high": high}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class BasePolicy(ABC):
    """Base class of policies: a pure function of the tree and a random stream.

    Its fields are its parameters, set by ``--set`` and checked for range; it holds no other state.
    A parameter is an integer, a float, or a ``Literal`` of strings.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    """Where the default values come from."""
    most: ClassVar[int | None] = None
    """The most nodes that it ever makes; None if only the budgets limit it."""

    @classmethod
    def from_settings(cls, settings: dict[str, str]) -> Self:
        """Return a policy with ``settings`` over its defaults. Raises ConfigError."""
        kinds = _kinds(cls)
        values = {}
        for key, text in settings.items():
            if key not in kinds:
                raise ConfigError(
                    f"Policy {cls.name} has no parameter {key!r}.",
                    remedy=did_you_mean(key, kinds) if kinds else f"{cls.name} takes none",
                )
            values[key] = _parse(f"{cls.name}.{key}", kinds[key], text)
        return cls(**values)

    @abstractmethod
    def choose(self, tree: Tree, rng: Random) -> Decision | None:
        """Return what to do next, or None if there is nothing to do for now.

        ``tree`` also holds the running nodes (their state is not "scored"). After None the policy
        is called again as soon as a running node has finished a step; if none runs, the search
        ends. ``rng`` derives from the run's seed and the number that the next node will have.
        """

    def __post_init__(self) -> None:
        """Raise ConfigError where a number is out of its range."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, str):
                continue
            low, high = f.metadata["low"], f.metadata["high"]
            # Infinity and NaN are refused even where the range has no upper end.
            if not (math.isfinite(value) and low <= value <= high):
                raise ConfigError(f"{self.name}.{f.name} must {_range(low, high)}.")

    @classmethod
    def describe(cls) -> list[dict[str, Any]]:
        """Return each parameter's name, default, allowed values in words, and what it does."""
        kinds = _kinds(cls)
        return [
            {
                "name": f.name,
                "default": f.default,
                "allowed": _allowed(kinds[f.name], f.metadata["low"], f.metadata["high"]),
                "about": f.metadata["about"],
            }
            for f in fields(cls)
        ]


def _kinds(cls: type[BasePolicy]) -> dict[str, Any]:
    hints = type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def _parse(name: str, kind: Any, text: str) -> int | float | str:  # noqa: ANN401 (a type)
    if get_origin(kind) is Literal:
        choices = list(get_args(kind))
        if text not in choices:
            raise ConfigError(
                f"{name} = {text!r} is not a choice.", remedy=did_you_mean(text, choices)
            )
        return text
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        what = "an integer" if kind is int else "a number"
        raise ConfigError(f"{name} = {text[:40]!r} is not {what}.") from None


def _allowed(kind: Any, low: float, high: float) -> str:  # noqa: ANN401 (a type)
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    return f"{'integer' if kind is int else 'number'}, {_range(low, high).partition(' ')[2]}"


def _range(low: float, high: float) -> str:
    if high < math.inf:
        return f"lie between {low:g} and {high:g}"
    return f"be at least {low:g}"
