"""A suite: a TOML file that names many runs as groups of agents x policies x tasks x seeds.

A planned run's name is made from everything that decides what the run does. So a directory of that
name is that run, no matter who started it and when. Changing a group makes new runs; the old runs
are left alone.
"""

import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from harness.base.errors import ConfigError
from harness.base.files import read_text
from harness.base.strict import Strict
from harness.base.validation import problems
from harness.core.asked import Asked
from harness.core.writing import Writing
from sandboxes.registry import AUTO, BACKENDS

Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


def _known_sandbox(name: str) -> str:
    return name if name == AUTO else BACKENDS.known(name)


class SuiteGroup(Strict):
    """Runs of every agent with every policy on every task with every seed.

    ``seeds`` is a count (3 means 0, 1, 2) or a list. ``steps``, ``hours``, ``dollars``, the tokens
    and ``gpu_hours`` are budgets of one run; ``options`` are more arguments of ``harness run``.
    """

    agents: Names
    policies: Names = ("greedy",)
    tasks: Names
    seeds: Annotated[int, Field(ge=1)] | tuple[NonNegativeInt, ...] = 1
    profile: str = "smoke"
    steps: Annotated[int, Field(ge=1)] | None = None
    hours: PositiveFloat = 24.0
    sandbox: Annotated[str, AfterValidator(_known_sandbox)] = AUTO
    settings: tuple[str, ...] = ()
    literature: str | None = None
    blind: bool = False
    dollars: PositiveFloat | None = None
    input_tokens: Annotated[int, Field(ge=1)] | None = None
    output_tokens: Annotated[int, Field(ge=1)] | None = None
    gpu_hours: PositiveFloat | None = None
    options: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _settings_have_owners(self) -> Self:
        for setting in self.settings:
            if setting.partition(".")[0] not in self.policies:
                raise ValueError(f"setting {setting!r} is for none of its policies")
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds themselves, also where ``seeds`` is a count."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


class AssumedTokens(Strict):
    """Tokens and seconds that a model is assumed to need for one step; only for ``--dry-run``."""

    tokens_in: NonNegativeInt
    tokens_cached: NonNegativeInt = 0
    """Of ``tokens_in``, those that a provider reads from its cache."""
    tokens_out: NonNegativeInt
    write_s: Annotated[float, Field(ge=0)] = 0.0


class Assumed(Strict):
    """What ``--dry-run`` assumes where nothing was measured yet.

    An evaluation takes ``share_of_limits`` of the profile's train_s + serve_s, or
    ``evaluation_s`` where the task is not here yet.
    """

    share_of_limits: Annotated[float, Field(gt=0, le=1)] = 0.5
    evaluation_s: PositiveFloat = 600.0
    policies: dict[str, AssumedTokens] = Field(default_factory=dict)


class Server(Strict):
    """The address of the server of an agent that runs on the user's own GPUs."""

    base_url: str


class Suite(Strict):
    """The contents of the file. ``defaults`` apply to each group that does not override them."""

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")]
    about: str = ""
    defaults: dict[str, Any] = Field(default_factory=dict)
    groups: Annotated[tuple[SuiteGroup, ...], Field(min_length=1)]
    servers: dict[str, Server] = Field(default_factory=dict)
    assume: Assumed = Assumed()


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a suite. ``name`` is the name of its directory."""

    name: str
    asked: Asked = field(hash=False)
    options: tuple[str, ...] = ()
    """More arguments of ``harness run``, as they stand in the suite."""


def load(file: Path) -> Suite:
    """Read a suite. Raises ConfigError that says what is wrong and where."""
    try:
        text = read_text(file, follow=True)
        values = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read as a suite.",
            cause=str(error),
            remedy="harness sweep suites/smoke.toml",
        ) from error
    except ValueError as error:
        raise ConfigError(f"{file} is not valid TOML.", cause=str(error)) from error
    defaults, groups = values.get("defaults", {}), values.get("groups", [])
    if isinstance(defaults, dict) and isinstance(groups, list):
        values["groups"] = [
            {**defaults, **group} if isinstance(group, dict) else group for group in groups
        ]
    try:
        suite = Suite.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            f"{file} is not a valid suite.",
            cause=problems(error, Suite, toml=text),
            remedy="docs/guides/sweeps.md has the format",
        ) from error
    names = Counter(run.name for run in expand(suite, file.parent))
    twice = [name for name, n in names.items() if n > 1]
    if twice:
        raise ConfigError(f"{file} plans a run more than once: {twice[0]}.")
    return suite


def expand(suite: Suite, beside: Path) -> Iterator[Planned]:
    """Yield every run in the order in which they are started.

    Seeds are the outermost loop, so that a sweep that is cut short has still compared all agents
    on all tasks, with fewer seeds. Then come groups, tasks, agents and policies, as listed.
    ``beside``: the folder that paths in the suite are relative to.
    """
    seeds = dict.fromkeys(seed for group in suite.groups for seed in group.seed_list)
    for seed in seeds:
        for group in suite.groups:
            if seed in group.seed_list:
                for task, agent, policy in product(group.tasks, group.agents, group.policies):
                    asked = _asked(group, beside, suite, task, agent, policy, seed)
                    yield Planned(_name(group, asked), asked, group.options)


def _asked(
    group: SuiteGroup, beside: Path, suite: Suite, task: str, agent: str, policy: str, seed: int
) -> Asked:
    server = suite.servers.get(agent)
    return Asked(
        task=task,
        agent=agent,
        seed=seed,
        policy=policy,
        profile=group.profile,
        # Leave out settings of the other policies of the group.
        settings=tuple(s for s in group.settings if s.partition(".")[0] == policy),
        steps=group.steps or 0,
        time_s=group.hours * 3600,
        sandbox=group.sandbox,
        gpu_hours=group.gpu_hours,
        input_tokens=group.input_tokens,
        output_tokens=group.output_tokens,
        dollars=group.dollars,
        writing=Writing(
            base_url=server.base_url if server else None,
            literature=(beside / group.literature).resolve() if group.literature else None,
            blind=group.blind,
        ),
    )


def _name(group: SuiteGroup, asked: Asked) -> str:
    """Return the name of a run's directory: readable, and always the same for the same request.

    Its hash covers the group as the suite has it, so that versions and machines agree on the name.
    """
    unsaid = {"agents", "policies", "tasks", "seeds"}
    if not group.blind:  # so names are as they were before groups could be blind
        unsaid |= {"blind"}
    decides = group.model_dump(mode="json", exclude=unsaid)
    ours = [asked.agent, asked.policy, asked.task, asked.seed, decides]
    tag = hashlib.sha256(json.dumps(ours, sort_keys=True).encode()).hexdigest()[:8]
    parts = (asked.task, asked.profile, asked.agent, asked.policy, f"s{asked.seed}")
    return "_".join(re.sub(r"[^A-Za-z0-9.-]", "-", part)[:40] for part in (*parts, tag))
