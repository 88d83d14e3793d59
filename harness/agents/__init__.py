"""Who writes submissions: the agents, the clients of language models, the record of calls.

``AGENTS`` holds those without a language model; ``harness.launch.agents`` makes all agents by name.
"""

from collections.abc import Callable

from harness.agents.baselines import RandomAgent, TpeAgent
from harness.agents.gaussian_process import GaussianProcessAgent
from harness.agents.mutation import EvolutionAgent, LocalAgent
from harness.agents.prior import PriorAgent
from harness.agents.reference import ReferenceAgent
from harness.base.registry import Registry, name_fault
from harness.core.agent import Agent

_OURS = (
    ReferenceAgent,
    RandomAgent,
    TpeAgent,
    EvolutionAgent,
    LocalAgent,
    GaussianProcessAgent,
    PriorAgent,
)


def _fault(name: str, agent: object) -> str:
    if not callable(agent):
        return "wanted: a class whose instances are agents"
    if not callable(getattr(agent, "write", None)):
        return "it has no method write"
    return name_fault(name, agent)


AGENTS: Registry[Callable[[], Agent]] = Registry(
    "agent", "harness.agents", {a.name: a for a in _OURS}, _fault
)
"""Agents that need no model of the table, by name; each value is called without arguments."""

__all__ = ["AGENTS"]
