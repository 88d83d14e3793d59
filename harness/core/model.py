"""The seams between operators, the record of a run's calls, and the clients of providers.

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
"""Why an answer ended: by itself, at a limit of length, or because the provider refused."""


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
    """Whether the provider did not say, or not credibly: bytes are counted, an upper bound."""

    @property
    def prompt_tokens(self) -> int:
        """All tokens that went in."""
        return self.input_tokens + self.cached_tokens + self.cache_write_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """A provider's answer. ``text`` may be empty. ``seconds`` is the call's own time, no waiting.

    ``waited_s`` went to rate limits, back-off and the queue for a free connection.
    ``lost_tries`` were sent, and their answers never came whole: perhaps charged, tokens unknown,
    and in no ``usage``; ``Client.send`` tells of each.
    """

    text: str
    stop: Stop
    usage: Usage
    model_id: str
    seconds: float
    waited_s: float = 0.0
    lost_tries: int = 0


Price = Callable[[Usage], float | None]
"""Dollars of one call's tokens; None where the price is unknown."""


class Client(Protocol):
    """One model behind one provider's API. Thread-safe."""

    def describe(self) -> dict[str, object]:
        """Return all that decides an answer besides the prompt (model id, settings): hashed."""
        ...

    def worst_tokens(self, prompt: Prompt) -> tuple[int, int]:
        """Return upper bounds of the prompt's and the answer's tokens; no network."""
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
        """Return the answer, after retries. ``say`` is told, in a line, what is waited for.

        ``lost`` is called after each try that was sent and whose answer never came whole, with
        whether another one follows; what it raises ends the call.

        Raises ProviderError where the provider failed for good, ConfigError where the key or the
        request is wrong, Cancelled.
        """
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model that can be asked, and what is known of it.

    ``worst_price`` is the most that so many tokens in and out can cost; ``fits`` says whether
    they are within its context.
    """

    client: Client
    price: Price
    worst_price: Callable[[int, int], float | None]
    fits: Callable[[int, int], bool]
    prices: tuple[dict[str, Any], ...] = ()
    """As in the table, for the run's lock."""


class Model(Protocol):
    """A model as operators see it, bound to one node of one run."""

    def complete(self, prompt: Prompt, *, purpose: str) -> Reply:
        """Return the answer. ``purpose`` (draft, debug, again, analyze …) is recorded beside it.

        Raises BudgetSpent before anything is sent where the call could exceed what is left, and
        what ``Client.send`` raises.
        """
        ...

    def fits(self, prompt: Prompt) -> bool:
        """Return whether the prompt and a full answer fit the model's context."""
        ...


class BudgetSpent(ProviderError):
    """A call was not sent because it could exceed a budget; the run ends with its best so far."""
