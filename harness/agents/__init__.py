"""Who writes the submissions."""

from harness.agents.base import Agent, Answer, Ask, Exhausted
from harness.agents.baselines import RandomAgent, TpeAgent
from harness.agents.reference import ReferenceAgent
from harness.errors import ConfigError
from tasks.spec import did_you_mean

AGENTS: dict[str, type[ReferenceAgent] | type[RandomAgent] | type[TpeAgent]] = {
    a.name: a for a in (ReferenceAgent, RandomAgent, TpeAgent)
}

__all__ = ["AGENTS", "Agent", "Answer", "Ask", "Exhausted", "make_agent"]


def make_agent(name: str) -> Agent:
    """Return the agent of that name. Raises ConfigError naming the nearest one."""
    if name not in AGENTS:
        raise ConfigError(f"There is no agent {name!r}.", remedy=did_you_mean(name, AGENTS))
    return AGENTS[name]()
