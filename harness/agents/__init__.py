"""Who writes the submissions."""

from harness.agents.baselines import RandomAgent, TpeAgent
from harness.agents.reference import ReferenceAgent

AGENTS: dict[str, type[ReferenceAgent] | type[RandomAgent] | type[TpeAgent]] = {
    a.name: a for a in (ReferenceAgent, RandomAgent, TpeAgent)
}
"""Those that need no model, by name."""

__all__ = ["AGENTS"]
