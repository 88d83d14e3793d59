"""The interfaces between operators, the record of a run's calls, and the clients of providers.

    operator ── Prompt ──► Model (harness.agents.calls: budget, record, replay)
                             └── Prompt ──► Client (harness.agents.clients: one HTTP API)

An operator sees a ``Model`` only; it cannot tell a live answer from a recorded one.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from harness.base.errors import ProviderError

Stop = Literal["end", "length", "refusal"]
"""Why an answer ended: by itself, at the limit of its length, or because the provider refused."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked. ``system`` holds what stays the same over a run, so that it can be cached."""

    system: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. ``output_tokens`` includes ``reasoning_tokens``.

    ``input_tokens`` excludes what was read from the provider's cache (``cached_tokens``) and what
    was written into it (``cache_write_tokens``), whatever the provider's own counting.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    """Whether the provider gave no credible counts: then bytes are counted, an upper bound."""

    @property
    def prompt_tokens(self) -> int:
        """All input tokens, cached or not."""
        return self.input_tokens + self.cached_tokens + self.cache_write_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """A provider's answer. ``text`` may be empty. ``seconds`` is the call's own time, no waiting.

    ``waited_s`` is the time of rate limits, failed tries, back-off and the queue for a free
    connection. ``lost_tries`` counts the tries that were sent but not answered in full: the
    provider may charge for each. Their tokens are unknown and not part of ``usage``;
    ``Client.send`` reports each of them.
    """

    text: str
    stop: Stop
    usage: Usage
    model_id: str
    seconds: float
    waited_s: float = 0.0
    lost_tries: int = 0


PriceOf = Callable[[Usage], float | None]
"""Dollars of one call's tokens; None where the price is unknown."""


class Client(Protocol):
    """One model behind one provider's API. Thread-safe."""

    def describe(self) -> dict[str, object]:
        """Return all that decides an answer besides the prompt (model id, settings); for hashes."""
        ...

    def worst_tokens(self, prompt: Prompt) -> tuple[int, int]:
        """Return upper bounds of the prompt's and the answer's tokens, without network access."""
        ...

    def check(self) -> None:
        """Find out, at no cost, whether the server answers and the key is right.

        Raises ConfigError, ProviderError.
        """
        ...

    def send(
        self,
        prompt: Prompt,
        *,
        say: Callable[[str], None],
        cancel: threading.Event,
        lost: Callable[[bool], None] = lambda _: None,
    ) -> Reply:
        """Return the answer, after retries. ``say`` is called with a line on each wait.

        ``lost`` is called after each try that was sent but not answered in full; its argument
        says whether another try follows. An exception from ``lost`` ends the call.

        Raises ProviderError where the provider failed for good, ConfigError where the key or the
        request is wrong, Cancelled.
        """
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model that can be called, with its prices and the size of its context.

    ``worst_price`` returns the most that given numbers of input and output tokens can cost;
    ``fits`` returns whether they fit the context.
    """

    client: Client
    price: PriceOf
    worst_price: Callable[[int, int], float | None]
    fits: Callable[[int, int], bool]
    prices: tuple[dict[str, Any], ...] = ()
    """The prices as in the price table, for the run's lock."""


class Model(Protocol):
    """A model as operators see it, bound to one node of one run."""

    def complete(self, prompt: Prompt, *, purpose: str) -> Reply:
        """Return the answer. ``purpose`` (draft, debug, again, analyze …) is recorded beside it.

        Raises BudgetSpent, before anything is sent, if the call could exceed what is left of a
        budget, and what ``Client.send`` raises.
        """
        ...

    def fits(self, prompt: Prompt) -> bool:
        """Return whether the prompt and a full answer fit the model's context."""
        ...


class BudgetSpent(ProviderError):
    """A call was not sent because it could exceed a budget; the run ends with its best so far."""
