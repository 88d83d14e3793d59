"""Groups runs into samples: those of one contender, on one task, under one set of conditions.

A contender is an agent with a policy. Where its runs of one task were set up differently
(steps, budgets, settings of the policy or of the model), each set-up is a separate contender,
named by what differs: a run of 500 steps is not a second seed of a run of five. Blind runs are a
contender of their own, and always say so.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from harness.core.asked import Asked, Lockfile
from harness.store.index import IndexEntry
from harness.store.unchanged import ASKED
from scorers.conditions import differing
from tasks.metrics import METRICS, Direction

By = Literal["agent", "model", "policy", "task"]

SETUP = (
    "steps",
    "time_s",
    "workers",
    "gpu_hours",
    "input_tokens",
    "output_tokens",
    "dollars",
    "charge_waiting",
)
"""Fields of ``run.toml`` that set up a search, besides ``settings`` and ``writing``."""

ABSENT = object()
"""Stands for a setting that a run does not have; None is a value that a setting may have."""

PLACES = {name.removeprefix("writing.") for name, rule in ASKED.items() if rule == "as resolved"}
"""Fields of ``writing`` that name a place. What was found there is in the lock (server, settings,
hashes of texts). The place itself does not matter: the same server may have another port, the same
folder another path."""


@dataclass(frozen=True, slots=True, order=True)
class Contender:
    """An agent, a policy or both. ``setup``: what sets its runs apart from others of the same."""

    agent: str
    policy: str
    setup: str = ""

    def __str__(self) -> str:
        who = " x ".join(part for part in (self.agent, self.policy) if part)
        return f"{who} ({self.setup})" if self.setup else who


@dataclass(frozen=True, slots=True)
class Sample:
    """The graded runs of one contender on one task under one set of conditions, by seed.

    ``scores``: None is an invalid run. ``rows``: how many rows an accuracy is a share of, None if
    unknown. ``missing``: seeds without a graded run, with the reason.
    """

    contender: Contender
    task: str
    metric: str
    direction: Direction
    conditions: Mapping[str, str]
    scores: Mapping[int, tuple[float | None, ...]]
    rows: int | None = None
    missing: Mapping[int, str] = field(default_factory=dict)

    @property
    def sign(self) -> float:
        """1 if more is better, else -1."""
        return 1.0 if self.direction == "maximize" else -1.0

    def differs(self, other: "Sample", across: Collection[str] = ()) -> list[str]:
        """Return the names of the conditions that differ, except those in ``across``."""
        return [n for n in differing(self.conditions, other.conditions) if n not in across]

    @property
    def valid(self) -> list[float]:
        """The scores of the valid runs."""
        return [s for runs in self.scores.values() for s in runs if s is not None]

    @property
    def by_seed(self) -> dict[int, float | None]:
        """One score a seed: the mean of its valid runs, None if it has none.

        A seed that was run twice is one draw, not two: on a CPU both scores agree in every digit.
        """
        valid = {seed: [s for s in runs if s is not None] for seed, runs in self.scores.items()}
        return {seed: fmean(runs) if runs else None for seed, runs in valid.items()}

    @property
    def graded(self) -> int:
        """How many runs were graded, invalid ones included."""
        return sum(map(len, self.scores.values()))

    @property
    def score_step(self) -> float:
        """The smallest step between scores, 1 / rows; 0 if unknown, or if there is no such step."""
        return 1 / self.rows if self.rows else 0.0

    @property
    def values(self) -> dict[int, float]:
        """One score a seed: the mean of its runs, an invalid run counted as the metric's floor."""
        floor = METRICS.find(self.metric).floor
        return {
            seed: sum(floor if s is None else s for s in runs) / len(runs)
            for seed, runs in self.scores.items()
        }


def contenders(entries: Iterable[IndexEntry], by: By = "agent") -> dict[str, Contender]:
    """Return the contender of each run, by the run's path."""
    families: dict[Contender, list[tuple[str, Asked, dict[str, object]]]] = defaultdict(list)
    for entry in entries:
        if entry.asked is not None and entry.lock is not None:
            run = (entry.path, entry.asked, _setup(entry.asked, entry.lock))
            family = Contender(*_family(entry.asked, by), told(entry.asked))
            families[family].append(run)
    found: dict[str, Contender] = {}
    for family, runs in families.items():
        varied = _varied((asked, setup) for _, asked, setup in runs)
        for path, _, setup in runs:
            label = [f"{n}={_word(n, setup[n])}" for n in varied if n in setup]
            parts = [family.setup, *label] if family.setup else label
            found[path] = replace(family, setup=", ".join(parts))
    return found


def told(asked: Asked) -> str:
    """Return "blind" for a run whose model was not told what its task is; else ""."""
    return "blind" if asked.writing.blind else ""


def _family(asked: Asked, by: By) -> tuple[str, str]:
    match by:
        case "model":
            return asked.agent, ""
        case "policy":
            return "", asked.policy
        case "agent" | "task":
            return asked.agent, asked.policy


def _setup(asked: Asked, lock: Lockfile) -> dict[str, object]:
    """Return all settings of a run, defaults included.

    Settings of ``writing`` that name ``PLACES`` are left out if the lock has an agent's settings.
    """
    found = {name: getattr(asked, name) for name in SETUP}
    found |= {f"{asked.policy}.{name}": value for name, value in lock.policy.items()}
    found |= lock.agent
    return found | {n: value for n, value in asked.writing if not (lock.agent and n in PLACES)}


def _word(name: str, value: object) -> str:
    if name in SETUP or isinstance(value, str):
        return str(value)
    return json.dumps(value, sort_keys=True, default=str)


def _varied(runs: Iterable[tuple[Asked, dict[str, object]]]) -> list[str]:
    """Return the names of settings that differ between runs of one task, policy and agent.

    Between tasks they may differ: each profile has its own number of steps. Pooled policies and
    models have their own settings, too.
    """
    firsts: dict[tuple[str, str, str], dict[str, object]] = {}
    found: set[str] = set()
    for asked, setup in runs:
        first = firsts.setdefault((asked.task, asked.policy, asked.agent), setup)
        if first != setup:
            names = first.keys() | setup.keys()
            found |= {n for n in names if first.get(n, ABSENT) != setup.get(n, ABSENT)}
    return sorted(found)


def samples(entries: Iterable[IndexEntry], owner: Mapping[str, Contender]) -> list[Sample]:
    """Return the samples of runs. ``owner``: the contender of each run, by path.

    Replays, unreadable runs, and samples without a graded run are left out.
    """
    grouped: dict[tuple[Contender, str, tuple[tuple[str, str], ...]], list[IndexEntry]] = (
        defaultdict(list)
    )
    for entry in entries:
        if entry.asked is None or entry.is_replay:
            continue
        key = tuple(sorted(entry.key.items()))
        grouped[owner[entry.path], entry.asked.task, key].append(entry)
    found = [_sample(who, task, dict(key), runs) for (who, task, key), runs in grouped.items()]
    return [sample for sample in found if sample is not None]


def _sample(
    who: Contender, task: str, conditions: dict[str, str], runs: list[IndexEntry]
) -> Sample | None:
    scores: dict[int, list[float | None]] = defaultdict(list)
    missing: dict[int, str] = {}
    metric, rows = "", None
    direction: Direction = "maximize"
    for entry in runs:
        if entry.asked is None or entry.lock is None:
            continue
        seed, outcome = entry.asked.seed, entry.outcome
        if outcome is None:
            missing[seed] = entry.problem or entry.state
            continue
        metric, direction = outcome.metric, entry.lock.direction
        rows = rows or outcome.rows
        scores[seed].append(outcome.score if outcome.valid else None)
    if not scores:
        return None
    return Sample(
        who,
        task,
        metric,
        direction,
        conditions,
        {seed: tuple(scores[seed]) for seed in sorted(scores)},
        rows,
        {seed: why for seed, why in missing.items() if seed not in scores},
    )


def in_words(
    names: Iterable[str], a: Mapping[str, str], b: Mapping[str, str], between: str
) -> list[str]:
    """Return these conditions of two sides as text, for example ``torch 2.9 → 2.10``."""
    return [f"{n} {a.get(n) or '–'} {between} {b.get(n) or '–'}" for n in names]
