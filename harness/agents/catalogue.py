"""The models as data: ``agents.toml``, and a user's own table merged over it.

All differences between models (limits, prices, which parameters a model takes and under which
name) are in the table; the code names no model. A missing price is unknown, and so are costs that
depend on it: they are never 0. The clients that call a model are in ``harness.agents.clients``.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from harness.agents.addresses import WrongAddress, refuse_wrong, without_password
from harness.agents.providers import PROVIDERS
from harness.base.errors import ConfigError
from harness.base.files import read_text
from harness.base.strict import Strict
from harness.base.validation import did_you_mean, problems
from harness.core.model import Usage
from harness.core.writing import Writing

OURS = Path(__file__).with_name("agents.toml")
VARIABLE = "HARNESS_AGENTS"


_SECRET = re.compile(r"authorization|api[-_]?key|secret|password|cookie|bearer|access[-_]?token")


def _names(value: object) -> Iterator[str]:
    """Yield the names of all fields in a value of a table, however deep they are."""
    match value:
        case dict():
            for name, inner in value.items():
                yield name
                yield from _names(inner)
        case list():
            for inner in value:
                yield from _names(inner)


class TokenPrice(Strict):
    """Dollars per million tokens, for prompts of more than ``above_prompt_tokens`` tokens."""

    above_prompt_tokens: int = 0
    input: NonNegativeFloat
    cached: NonNegativeFloat | None = None
    cache_write: NonNegativeFloat | None = None
    output: NonNegativeFloat


class Retirement(Strict):
    """When a provider shuts a model: on that day (shut), or not before it (earliest)."""

    on: date
    kind: Literal["shut", "earliest"]


class Effort(Strict):
    """The reasoning effort: its place in a request (a dotted path), and the accepted words.

    If ``values`` is a table, it maps each word to the value that is sent.
    """

    field: str
    values: tuple[str, ...] | dict[str, str | bool | int]

    def sent(self, word: str) -> str | bool | int:
        """Return the value that a request carries for a word."""
        return self.values[word] if isinstance(self.values, dict) else word


class ModelEntry(Strict):
    """One model of the table."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$")]
    title: str
    maker: str = ""
    paper: bool = False
    """True for the twelve models of arXiv 2605.15871."""
    provider: Annotated[str, AfterValidator(partial(PROVIDERS.known, secret=True))]
    """Which protocol to use; openai stands for every compatible server."""
    model: str
    base_url: str | None = None
    """None: the model runs on your own server, and the run must give its address."""
    key: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    """The environment variable that holds the key, never the key."""
    context_tokens: PositiveInt
    """Prompt and answer together."""
    max_input_tokens: PositiveInt | None = None
    max_output_tokens: PositiveInt
    answer_tokens: PositiveInt = 32_000
    """How long an answer may be, reasoning included, if the run does not set a limit."""
    concurrency: PositiveInt = 8
    """How many calls may be under way at once to this model's server, from one process."""
    prices: tuple[TokenPrice, ...] = ()
    price_date: date | None = None
    price_source: str = ""
    retires: Retirement | None = None
    successor: str | None = None
    note: str = ""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    """For the openai protocol; the anthropic protocol has only one name for this field."""
    temperature: bool = True
    """Whether a request may set a temperature."""
    effort: Effort | None = None
    stream_usage: bool = True
    """Whether the server understands ``stream_options.include_usage``."""
    cache_control: bool = False
    system_role: Literal["system", "developer", "user"] = "system"
    """The role of the system text; user: the text is put before the first message."""
    system_prefix: str = ""
    think_tags: bool = False
    """Whether the answer holds its reasoning between think tags. For information only."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    extra_headers: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> "ModelEntry":
        bounds = [p.above_prompt_tokens for p in self.prices]
        if bounds and (bounds[0] != 0 or sorted(set(bounds)) != bounds):
            raise ValueError("prices must begin above 0 prompt tokens and rise")
        if self.max_output_tokens > self.context_tokens:
            raise ValueError("max_output_tokens exceeds context_tokens")
        for name in _names([self.extra_headers, self.extra_body]):
            if _SECRET.search(name.lower()):
                raise ValueError(f"{name!r} looks like a secret: keys come from the environment")
        if self.base_url is not None:
            refuse_wrong(self.base_url, PROVIDERS.find(self.provider))
        return self

    def price(self, usage: Usage) -> float | None:
        """Return the dollars of one call; None if a price that it needs is unknown."""
        bands = self._bands(usage.prompt_tokens)
        if not bands:
            return None
        band = bands[-1]
        parts = (
            (usage.input_tokens, band.input),
            (usage.cached_tokens, band.cached),
            (usage.cache_write_tokens, band.cache_write),
            (usage.output_tokens, band.output),
        )
        total = 0.0
        for tokens, dollars in parts:
            if tokens and dollars is None:
                return None
            total += tokens * (dollars or 0.0)
        return total / 1e6

    def worst_price(self, prompt_tokens: int, output_tokens: int) -> float | None:
        """Return the most dollars that a call of at most these sizes can cost; None if unknown.

        Writing a prompt into the provider's cache costs more than plain input, so the price of
        input alone would not be an upper bound.
        """
        return max(
            (
                (prompt_tokens * max(b.input, b.cache_write or 0.0) + output_tokens * b.output)
                / 1e6
                for b in self._bands(prompt_tokens)
            ),
            default=None,
        )

    def fits(self, prompt_tokens: int, output_tokens: int) -> bool:
        """Return whether a prompt and an answer of these sizes are within the model's limits."""
        return (
            prompt_tokens + output_tokens <= self.context_tokens
            and prompt_tokens <= (self.max_input_tokens or self.context_tokens)
            and output_tokens <= self.max_output_tokens
        )

    def read_key(self) -> str:
        """Return the key from the environment; empty if it needs none or none is set."""
        return os.environ.get(self.key, "").strip() if self.key else ""

    def is_shut(self, today: date) -> bool:
        """Return whether its provider has shut it. An "earliest" date does not tell."""
        return self.retires is not None and self.retires.kind == "shut" and today >= self.retires.on

    def _bands(self, prompt_tokens: int) -> list[TokenPrice]:
        """Return the prices up to that size of prompt; the last of them is the one that holds."""
        return [b for b in self.prices if b.above_prompt_tokens < max(prompt_tokens, 1)]


def check_settings(entry: ModelEntry, writing: Writing) -> None:
    """Refuse a setting that the model does not take. Raises ConfigError."""
    if writing.base_url is not None:
        try:
            refuse_wrong(writing.base_url, PROVIDERS.find(entry.provider))
        except WrongAddress as error:
            raise ConfigError(
                f"This base URL cannot be used: {error}.",
                cause=f"asked for: {without_password(writing.base_url)}",
                remedy=f"--base-url {error.likely}",
            ) from None
    elif entry.base_url is None:
        raise ConfigError(
            f"Agent {entry.name} runs on your own server, and no address was given.",
            remedy="--base-url http://127.0.0.1:8000/v1",
        )
    if writing.effort is not None:
        if entry.effort is None:
            raise ConfigError(f"Agent {entry.name} has no effort to set.", remedy="no --effort")
        if writing.effort not in entry.effort.values:
            raise ConfigError(
                f"Agent {entry.name} knows no effort {writing.effort!r}.",
                remedy=did_you_mean(writing.effort, entry.effort.values),
            )
    if writing.temperature is not None:
        if not entry.temperature:
            raise ConfigError(
                f"Agent {entry.name} takes no temperature: its provider refuses one.",
                remedy="no --temperature",
            )
        if not 0 <= writing.temperature <= 2:
            raise ConfigError(
                f"Temperature {writing.temperature} is outside 0 to 2.", remedy="--temperature 1"
            )
    wanted = writing.max_answer_tokens
    if wanted is not None and not 0 < wanted <= entry.max_output_tokens:
        raise ConfigError(
            f"Agent {entry.name} answers with at most {entry.max_output_tokens:,} tokens, "
            f"and {wanted:,} were asked for.",
            remedy=f"1 to {entry.max_output_tokens}",
        )


def find_agent(name: str, file: Path | None = None) -> ModelEntry:
    """Return the model of that name. Raises ConfigError naming the nearest one."""
    known = load_agents(file)
    if name not in known:
        raise ConfigError(f"There is no agent {name!r}.", remedy=did_you_mean(name, known))
    return known[name]


def load_agents(file: Path | None = None) -> dict[str, ModelEntry]:
    """Return all models: ours, overridden by the user's table (``file``, or $HARNESS_AGENTS).

    Raises ConfigError.
    """
    named = file or Path(os.environ.get(VARIABLE) or OURS)
    tables = dict(_read_ours())
    theirs = {} if named == OURS else _read(Path(os.path.expanduser(named)))  # noqa: PTH111 (raises nothing)
    for name, own in theirs.items():
        merged = {**tables.get(name, {}), **own}
        if "prices" in own:
            merged |= {"price_source": own.get("price_source", str(named))}
            merged |= {"price_date": own.get("price_date")}
        tables[name] = merged
    return {name: _entry(name, table, named) for name, table in tables.items()}


def today() -> date:
    """Return today's date in UTC, which decides whether a model is retired."""
    return datetime.now(UTC).date()


@cache
def _read_ours() -> Mapping[str, dict[str, Any]]:
    return _read(OURS)


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = tomllib.loads(read_text(file, follow=True))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"The table of agents {file} cannot be read.",
            cause=str(error),
            remedy=f"give another file, or unset {VARIABLE}",
        ) from error
    tables = content.get("agents")
    wrong = set(content) - {"format", "agents"}
    if content.get("format") != 1 or not isinstance(tables, dict) or wrong:
        raise ConfigError(
            f"{file} is no table of agents.",
            cause=f"unknown: {', '.join(sorted(wrong))}" if wrong else "",
            remedy='begin with "format = 1", then one table [agents.NAME] for each model',
        )
    if not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(f"{file}: every agent must be a table.", remedy="[agents.NAME]")
    return tables


def _entry(name: str, table: Mapping[str, Any], file: Path) -> ModelEntry:
    try:
        return ModelEntry(**{**table, "name": name})
    except ValidationError as error:
        raise ConfigError(
            f"Agent {name!r} in {file} is not valid.",
            cause=problems(error, ModelEntry, secret=True),  # a value may be a key
            remedy="see docs/guides/models.md for the fields",
        ) from None
