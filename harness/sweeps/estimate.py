"""Estimate what a suite will take, before anything is started: hours, tokens, dollars.

Based on what a task's profile says that an evaluation takes, else on the suite's assumptions. If
the runs folder has finished runs of the same task, profile, agent and policy, their measured step
replaces the assumed one. Dollars are unknown where
a price is unknown, or where the suite guesses no tokens: such runs are counted apart, never as 0.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from harness.core.model import Usage
from harness.policies import POLICIES
from harness.store.outcome import Outcome
from harness.store.reading import DAMAGE
from harness.store.rundir import Run
from harness.sweeps.agent_info import AgentInfo
from harness.sweeps.suite import AssumedTokens, Planned, Suite
from tasks.spec import Task

NOTHING = AssumedTokens(tokens_in=0, tokens_out=0)


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one step takes: ``seconds`` with the writing, ``evaluation_s`` for evaluation alone."""

    seconds: float
    evaluation_s: float
    runs: int = 0
    """How many finished runs it was measured over; 0 where it is assumed."""


MeasuredSteps = Mapping[tuple[str, ...], StepCost]
"""Steps by (task, profile, agent, policy), and by (task, profile)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one run will take. ``tokens_in`` includes cached tokens.

    ``tokens_in`` and ``tokens_out`` are None if the suite guesses none for the policy; ``dollars``
    is None then, or if the run is ``unpriced``. ``at_least``: ``seconds`` lacks the time to write.
    """

    run: Planned
    steps: int
    seconds: float
    gpu_seconds: float
    """The part of ``seconds`` that is spent on a GPU: a run holds none while its agent writes."""
    tokens_in: int | None
    tokens_out: int | None
    dollars: float | None
    at_most: float | None
    """Dollars that the run's own budget allows; None without one, 0 without a provider."""
    measured: int
    missing: tuple[str, ...]
    """Why it cannot be run: the task does not exist here yet, or the agent has an ``obstacle``."""
    unpriced: bool = False
    at_least: bool = False
    stated: str = ""
    """What the task's profile says that an evaluation takes, where that was taken; else empty."""


def measure(paths: Iterable[Path]) -> MeasuredSteps:
    """Return the mean steps of the finished runs; runs that cannot be read are left out."""
    seen: dict[tuple[str, ...], list[StepCost]] = defaultdict(list)
    for path in paths:
        try:
            outcome = Run(path).outcome
            step = _step(outcome) if outcome else None
            if outcome and step:
                alone = (str(outcome.task), str(outcome.profile))
                seen[alone].append(step)
                seen[(*alone, str(outcome.agent), str(outcome.policy))].append(step)
        except DAMAGE:
            continue
    return {
        key: StepCost(
            mean(s.seconds for s in steps), mean(s.evaluation_s for s in steps), len(steps)
        )
        for key, steps in seen.items()
    }


def _step(outcome: Outcome) -> StepCost | None:
    scored, seconds = outcome.nodes.scored, outcome.seconds
    if not scored:
        return None
    # Time that the run waited for GPUs is not counted.
    queued_s = outcome.spent.queued_s if outcome.spent else 0.0
    alone_s = max(seconds["nodes"], seconds["total"] - seconds.get("final", 0.0) - queued_s)
    return StepCost(alone_s / scored, seconds["nodes"] / scored)


def estimate(
    run: Planned, suite: Suite, task: Task | None, measured: MeasuredSteps, offer: AgentInfo
) -> Estimate:
    """Return what a run will take, and what is missing for it. ``task`` is None if not here yet.

    Raises ConfigError where the task has no such profile.
    """
    asked = run.asked
    guessed = suite.assume.policies.get(asked.policy) if offer.provider else NOTHING
    tokens = guessed or NOTHING
    profile = task.profile(asked.profile) if task else None
    stated = profile.evaluation if profile else None
    if profile is None:
        evaluation_s = suite.assume.evaluation_s
    elif stated:
        evaluation_s = stated.seconds
    else:
        limits = profile.limits
        evaluation_s = suite.assume.share_of_limits * (limits.train_s + limits.serve_s)
    place = (asked.task, asked.profile)
    step = own = measured.get((*place, asked.agent, asked.policy))
    if step is None:
        # Runs of other agents show how long an evaluation takes, not how long this agent writes.
        other = measured.get(place, StepCost(0.0, evaluation_s))
        step = replace(other, seconds=other.evaluation_s + tokens.write_s)
    wanted = asked.steps or (profile.search_steps if profile else 1)
    wanted = min(wanted, POLICIES.find(asked.policy).most or wanted)
    # No step begins after the time limit; a step under way is finished; the final one follows.
    steps = min(wanted, max(1, math.ceil(asked.time_s / step.seconds)))
    usage = Usage(
        input_tokens=tokens.tokens_in - tokens.tokens_cached,
        cached_tokens=tokens.tokens_cached,
        output_tokens=tokens.tokens_out,
    )
    each = offer.price(usage) if offer.provider else 0.0
    missing = [] if task else [f"task {asked.task} is not here yet"]
    if asked.writing.blind and not offer.provider:
        missing.append(f"agent {asked.agent} asks no model, so it cannot be blind")
    if asked.writing.blind and task and task.definition.blind is None:
        missing.append(f"task {asked.task} cannot be blind")
    if offer.obstacle:
        missing.append(offer.obstacle)
    return Estimate(
        run=run,
        steps=steps,
        seconds=steps * step.seconds + step.evaluation_s,
        gpu_seconds=(steps + 1) * step.evaluation_s * (profile is None or profile.device == "gpu"),
        tokens_in=steps * tokens.tokens_in if guessed else None,
        tokens_out=steps * tokens.tokens_out if guessed else None,
        dollars=None
        if each is None or not guessed
        else min(steps * each, asked.dollars or math.inf),
        at_most=asked.dollars if offer.provider else 0.0,
        measured=step.runs,
        missing=tuple(missing),
        unpriced=each is None,
        at_least=guessed is None and own is None,
        stated=f"{asked.task} {asked.profile}: {stated.seconds:g} s an evaluation ({stated.basis})"
        if stated and not step.runs
        else "",
    )


@dataclass(slots=True)
class Total:
    """Sums over many runs, of the values that are known.

    ``dollars`` leaves out the agents in ``unpriced``; tokens and dollars leave out the policies in
    ``unguessed``. ``at_least`` counts the runs whose ``seconds`` lack the time to write.
    """

    runs: int = 0
    steps: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float = 0.0
    at_most: float | None = 0.0
    measured: int = 0
    unpriced: set[str] = field(default_factory=set)
    unguessed: set[str] = field(default_factory=set)
    at_least: int = 0
    missing: int = 0

    def add(self, one: Estimate) -> None:
        """Count one run."""
        self.runs += 1
        self.steps += one.steps
        self.seconds += one.seconds
        self.gpu_seconds += one.gpu_seconds
        self.tokens_in += one.tokens_in or 0
        self.tokens_out += one.tokens_out or 0
        self.dollars += one.dollars or 0.0
        if self.at_most is not None:
            self.at_most = None if one.at_most is None else self.at_most + one.at_most
        self.measured += bool(one.measured)
        self.missing += bool(one.missing)
        self.at_least += one.at_least
        if one.unpriced:
            self.unpriced.add(one.run.asked.agent)
        if one.tokens_in is None:
            self.unguessed.add(one.run.asked.policy)

    @property
    def partial(self) -> bool:
        """Whether ``dollars`` leaves out some agents or policies."""
        return bool(self.unpriced or self.unguessed)

    def as_json(self) -> dict[str, Any]:
        """Return plain values; null is unknown.

        ``dollars`` is a lower bound if ``unpriced`` names agents; dollars and tokens are if
        ``unguessed`` names policies, and hours if ``at_least_runs`` is not 0.
        """
        tokens = bool(self.tokens_in or not self.unguessed)
        return {
            "runs": self.runs,
            "steps": self.steps,
            "hours": self.seconds / 3600,
            "gpu_hours": self.gpu_seconds / 3600,
            "tokens_in": self.tokens_in if tokens else None,
            "tokens_out": self.tokens_out if tokens else None,
            "dollars": self.dollars if self.dollars or not self.partial else None,
            "dollars_at_most": self.at_most,
            "unpriced": sorted(self.unpriced),
            "unguessed": sorted(self.unguessed),
            "at_least_runs": self.at_least,
            "measured_runs": self.measured,
            "missing_runs": self.missing,
        }


def wall_s(estimates: Iterable[Estimate], concurrent: int, gpus: int) -> float:
    """Return the seconds until the last run ends, if each in order takes the first free slot.

    ``gpus``: how many GPUs share the evaluations; 0 if that is not known.
    """
    ends, gpu_seconds = [0.0] * concurrent, 0.0
    for one in estimates:
        heapq.heapreplace(ends, ends[0] + one.seconds)
        gpu_seconds += one.gpu_seconds
    return max(*ends, gpu_seconds / gpus if gpus else 0.0)
