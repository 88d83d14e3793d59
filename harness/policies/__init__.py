"""Which node comes next: a policy chooses its operator and its parents.

It only decides: ``harness.search.loop`` asks the agent and has the submission scored.
"""

from inspect import isabstract

from harness.base.errors import ConfigError
from harness.base.registry import Registry, name_fault
from harness.policies.base import BasePolicy
from harness.policies.evolve import Evolve
from harness.policies.greedy import Greedy
from harness.policies.mcts import Mcts
from harness.policies.one_shot import OneShot


def _fault(name: str, policy: object) -> str:
    if not (isinstance(policy, type) and issubclass(policy, BasePolicy)):
        return "wanted: a class that inherits from harness.policies.base.BasePolicy"
    return "it has no method choose" if isabstract(policy) else name_fault(name, policy)


POLICIES: Registry[type[BasePolicy]] = Registry(
    "policy",
    "harness.policies",
    {p.name: p for p in (OneShot, Greedy, Mcts, Evolve)},
    _fault,
)

__all__ = ["POLICIES", "make_policy"]


def make_policy(name: str, settings: list[str]) -> BasePolicy:
    """Return the policy of that name; ``settings`` are ``policy.parameter=value`` strings.

    Raises ConfigError for an unknown name (naming the nearest one) and for a bad setting.
    """
    policy = POLICIES.find(name)
    values: dict[str, str] = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        owner, dot, parameter = path.partition(".")
        if not (equals and dot and parameter):
            raise ConfigError(f"--set {setting!r} is not of the form {name}.parameter=value.")
        if owner != name:
            raise ConfigError(f"--set {setting!r} is for {owner!r}, but the policy is {name!r}.")
        values[parameter] = value
    return policy.from_settings(values)
