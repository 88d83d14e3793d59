"""What a policy is: a pure function of the tree and a random stream."""

from dataclasses import dataclass, fields
from random import Random
from typing import Any, ClassVar, Protocol, Self

from harness.errors import ConfigError
from harness.search.tree import Operator, Tree
from tasks.spec import did_you_mean


@dataclass(frozen=True, slots=True)
class Decision:
    """The next thing to ask an agent for."""

    operator: Operator
    parents: tuple[int, ...] = ()


class Policy(Protocol):
    """Chooses the next node. Its fields are its parameters; it holds no other state."""

    name: ClassVar[str]

    def choose(self, tree: Tree, rng: Random) -> Decision | None:
        """Return what to do next, or None if there is nothing to do for now.

        ``tree`` holds the running nodes too (their state is not "scored"). ``rng`` derives
        from the run's seed and the number that the next node will have.
        """
        ...


@dataclass(frozen=True)
class Parameters:
    """Base of policies: builds one from ``--set`` values, with errors that name the parameter."""

    name: ClassVar[str]

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """Return a policy with ``settings`` over its defaults. Raises ConfigError."""
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for key, text in settings.items():
            if key not in known:
                raise ConfigError(
                    f"Policy {cls.name} has no parameter {key!r}.",
                    remedy=did_you_mean(key, known) if known else f"{cls.name} takes none",
                )
            kind: type[int] | type[float] = type(known[key].default)  # type: ignore[assignment]
            try:
                values[key] = kind(text)
            except ValueError as error:
                raise ConfigError(
                    f"{cls.name}.{key} = {text!r} is not {_article(kind)}."
                ) from error
        policy = cls(**values)
        policy.validate()
        return policy

    def validate(self) -> None:
        """Raise ConfigError where a parameter is out of its range."""


def _article(kind: type) -> str:
    return "an integer" if kind is int else "a number"
