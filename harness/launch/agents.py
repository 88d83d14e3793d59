"""Make an agent from its name: one without a model, a model of the table, or ``replay:RUN``."""

from harness.agents import AGENTS
from harness.agents.catalogue import find_agent, load_agents
from harness.agents.clients import make_client
from harness.agents.replay import make_replay
from harness.base.errors import ConfigError
from harness.base.validation import did_you_mean
from harness.core.agent import Agent
from harness.core.asked import REPLAY
from harness.core.model import Endpoint
from harness.core.writing import Writing
from harness.operators.model_agent import ModelAgent


def make_agent(name: str, writing: Writing | None = None, *, live: bool = False) -> Agent:
    """Return the agent of that name; ``replay:RUN`` repeats a run. Nothing is sent to a model yet.

    ``live``: a replay may continue with the real model where it differs from the recording.
    Raises ConfigError for an unknown name (naming the nearest one), a model that was shut down, or
    a missing key.
    """
    writing = writing or Writing()
    if name.startswith(REPLAY):
        _refuse_settings(name, writing)
        return make_replay(name.removeprefix(REPLAY), _make_recorded, live=live)
    if name in AGENTS:
        # Built-in agents skip this check: a broken table of models must not stop them.
        if name in AGENTS.added() and name in load_agents(writing.agents_file):
            raise ConfigError(
                f"Two agents are called {name!r}: a model, and one of another kind.",
                cause=AGENTS.added().get(name, ""),
                remedy="give one of them another name: scores of one name compare",
            )
        _refuse_settings(name, writing)
        return AGENTS.find(name)()
    known = load_agents(writing.agents_file)
    if name not in known:
        raise ConfigError(
            f"There is no agent {name!r}.", remedy=did_you_mean(name, [*AGENTS.names(), *known])
        )
    return _make_model_agent(name, writing, live=True)


def _make_recorded(name: str, writing: Writing, live: bool) -> Agent:
    return AGENTS.find(name)() if name in AGENTS else _make_model_agent(name, writing, live=live)


def _make_model_agent(name: str, writing: Writing, *, live: bool) -> Agent:
    """Return an agent with a model; if it is not ``live``, it needs neither a key nor an SDK."""
    if not live:
        return ModelAgent(name, writing)
    entry = find_agent(name, writing.agents_file)
    prices = tuple(band.model_dump() for band in entry.prices)
    client = make_client(entry, writing)
    endpoint = Endpoint(client, entry.price, entry.worst_price, entry.fits, prices)
    return ModelAgent(name, writing, endpoint)


def _refuse_settings(name: str, writing: Writing) -> None:
    # agents_file may come from the environment, so it is not a setting made for this agent.
    given = writing.model_dump(exclude_defaults=True, exclude={"agents_file"})
    if given:
        option = next(iter(given)).replace("_", "-")
        raise ConfigError(
            f"--{option} means nothing to agent {name}: it asks no model of yours.",
            remedy=f"leave --{option} out",
        )
