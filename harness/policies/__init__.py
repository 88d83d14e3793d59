"""Which node next, and by which operator."""

from harness.base.errors import ConfigError
from harness.base.validation import did_you_mean
from harness.policies.evolve import Evolve
from harness.policies.greedy import Greedy
from harness.policies.mcts import Mcts
from harness.policies.one_shot import OneShot

AnyPolicy = OneShot | Greedy | Mcts | Evolve

POLICIES: dict[str, type[AnyPolicy]] = {p.name: p for p in (OneShot, Greedy, Mcts, Evolve)}

__all__ = ["POLICIES", "make_policy"]


def make_policy(name: str, settings: list[str]) -> AnyPolicy:
    """Return the policy of that name; ``settings`` are ``policy.parameter=value`` texts.

    Raises ConfigError, naming the nearest name.
    """
    if name not in POLICIES:
        raise ConfigError(f"There is no policy {name!r}.", remedy=did_you_mean(name, POLICIES))
    values: dict[str, str] = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        owner, dot, parameter = path.partition(".")
        if not (equals and dot and parameter):
            raise ConfigError(f"--set {setting!r} is not of the form {name}.parameter=value.")
        if owner != name:
            raise ConfigError(f"--set {setting!r} is for {owner!r}, but the policy is {name!r}.")
        values[parameter] = value
    return POLICIES[name].from_settings(values)
