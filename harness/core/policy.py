"""What a policy decides. The policies, and their interface, are in ``harness.policies``."""

from dataclasses import dataclass

from harness.core.tree import Operator


@dataclass(frozen=True, slots=True)
class Decision:
    """The next thing to ask an agent for. A crossover has two parents, a draft has none."""

    operator: Operator
    parents: tuple[int, ...] = ()
