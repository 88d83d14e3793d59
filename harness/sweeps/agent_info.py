"""What a sweep must know of an agent before it starts: price, provider, end of life, key."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from harness.agents import AGENTS
from harness.agents.catalogue import ModelEntry, find_agent, today
from harness.base.errors import ConfigError
from harness.core.asked import REPLAY
from harness.core.model import Usage


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """An agent's model. ``provider`` is empty for agents that call none: they are free.

    ``obstacle`` says why it cannot run at all (model shut down, agent unknown or broken);
    ``unready`` says why it cannot run here and now (no key, no address).
    """

    provider: str = ""
    price: Callable[[Usage], float | None] = lambda usage: 0.0
    retires: str = ""
    obstacle: str = ""
    unready: str = ""
    own_server: bool = False
    """Whether the model runs on the user's own server, whose address must be given."""


FREE = AgentInfo()


def offer(agent: str) -> AgentInfo:
    """Return what is known of an agent; an unknown agent has an ``obstacle``."""
    if agent.startswith(REPLAY):
        return FREE
    if agent in AGENTS:
        error = AGENTS.broken().get(agent)
        return replace(FREE, obstacle=f"{error.message} {error.cause}") if error else FREE
    try:
        entry = find_agent(agent)
    except ConfigError as error:
        remedy = f", {error.remedy}" if error.remedy else ""
        return AgentInfo(
            provider=agent,
            price=lambda usage: None,
            obstacle=f"agent {agent} is not known here{remedy}",
        )
    return _of(entry)


def _of(entry: ModelEntry) -> AgentInfo:
    retires = ""
    if entry.retires:
        earliest = "not before " if entry.retires.kind == "earliest" else ""
        retires = f"{earliest}{entry.retires.on}"
    own_server, unready = entry.base_url is None, ""
    shut = entry.is_shut(today())
    if own_server:
        unready = f"agent {entry.name} runs on your own server: give its base_url in [servers]"
    elif entry.key and not entry.read_key():
        unready = f"agent {entry.name} needs {entry.key} in the environment"
    return AgentInfo(
        provider=entry.base_url or entry.name,
        price=entry.price,
        retires=retires,
        obstacle=f"agent {entry.name} was shut on {retires}: replay only" if shut else "",
        unready=unready,
        own_server=own_server,
    )
