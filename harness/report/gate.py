"""The gate: did a change make any score worse by more than is allowed?

A baseline is a small file of scores by seed. A change may alter what the repository holds (the
task's code and text, the scorer): this is what the gate tests. Data, profile, isolation, hardware
and torch must be the baseline's, unless the caller allows them to differ. The gate runs nothing: it
compares finished runs. The statistics are in stats/margin.py.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from harness.base.errors import ConfigError
from harness.base.files import read_json
from harness.base.strict import Strict
from harness.base.validation import problems
from harness.report.comparison import Pairing, difference, pair
from harness.report.samples import Contender, Sample, contenders, samples
from harness.report.stats.margin import GateDecision, GateVerdict, decide
from harness.report.stats.paired import Difference
from harness.store.index import IndexEntry, read
from harness.store.reading import other_format
from tasks.metrics import Direction, MetricName

FORMAT = 1
ANEW = "harness baseline RUNS… > baseline.json"
"""The command that makes a baseline."""

MAY_CHANGE = ("task", "scorer")
"""Conditions that the change under test may alter."""

MOST_REPLAYS = 10
"""A chain of replays of replays is followed no further than this."""


class BaselineGroup(Strict):
    """The baseline of one contender on one task: scores by seed, null for an invalid run."""

    model_config = ConfigDict(allow_inf_nan=False)
    task: str
    agent: str
    policy: str
    setup: str = ""
    metric: MetricName
    direction: Direction
    rows: int | None = Field(None, ge=1)
    conditions: dict[str, str]
    scores: dict[int, tuple[float | None, ...]] = Field(min_length=1)

    def sample(self) -> Sample:
        """Return the group as a sample of runs."""
        who = Contender(self.agent, self.policy, self.setup)
        return Sample(
            who, self.task, self.metric, self.direction, self.conditions, self.scores, self.rows
        )


class Baseline(Strict):
    """The contents of ``baseline.json``."""

    format: Literal[1] = 1
    harness: str
    groups: tuple[BaselineGroup, ...]


@dataclass(frozen=True, slots=True)
class AllowedDrop:
    """How much worse is allowed: a share of the baseline's mean, or an amount in the metric."""

    amount: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> "AllowedDrop":
        """Read ``0.5%`` or ``0.01``. Raises ConfigError."""
        number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
        try:
            amount = float(number)
        except ValueError:
            amount = -1.0
        if not 0 <= amount < 1e6:
            raise ConfigError(
                f"{text!r} is no amount that a score may drop.",
                remedy="0.5% of the baseline's mean, or 0.01 of the metric itself",
            )
        return cls(amount / 100 if percent else amount, percent)

    def of(self, mean: float) -> float:
        """Return the allowed drop in the metric, for a baseline of this mean."""
        return self.amount * abs(mean) if self.relative else self.amount

    def __str__(self) -> str:
        return f"{100 * self.amount:g}% of the baseline" if self.relative else f"{self.amount:g}"


@dataclass(frozen=True, slots=True)
class GateResult:
    """The gate's result for one task of one contender."""

    who: Contender
    pairing: Pairing
    test: Difference | None
    margin: float
    call: GateDecision
    notes: tuple[str, ...]

    @property
    def verdict(self) -> GateVerdict:
        return self.call.verdict


def make_baseline(entries: Iterable[IndexEntry], version: str) -> tuple[Baseline, list[str]]:
    """Return a baseline, and a line of text for each run that was left out.

    Raises ConfigError if no run was graded, or if one contender's runs of a task were made under
    several conditions.
    """
    found = list(entries)
    said = [f"left out: {e.path}: {e.problem or e.state}" for e in found if e.outcome is None]
    said += [f"left out, a replay: {e.path}" for e in found if e.is_replay]
    groups = [_group(sample) for sample in samples(found, contenders(found))]
    if not groups:
        raise ConfigError("There is no finished run to make a baseline of.", remedy="harness ls")
    groups.sort(key=lambda g: (g.task, g.agent, g.policy, g.setup, sorted(g.conditions.items())))
    twice = [name for name, count in Counter(map(_name, groups)).items() if count > 1]
    if twice:
        raise ConfigError(
            f"The runs of {', '.join(sorted(twice))} were made under several conditions.",
            remedy="harness leaderboard shows which; make the baseline of one of them",
        )
    return Baseline(harness=version, groups=tuple(groups)), said


def _name(group: BaselineGroup) -> str:
    return f"{group.sample().contender} on {group.task}"


def _group(sample: Sample) -> BaselineGroup:
    who = sample.contender
    return BaselineGroup(
        task=sample.task,
        agent=who.agent,
        policy=who.policy,
        setup=who.setup,
        metric=sample.metric,
        direction=sample.direction,
        rows=sample.rows,
        conditions=dict(sorted(sample.conditions.items())),
        scores=dict(sample.scores),
    )


def baseline_text(baseline: Baseline) -> str:
    """Return the file's text, sorted and with one line a seed, so that a diff shows changes."""
    text = json.dumps(baseline.model_dump(mode="json"), indent=1, ensure_ascii=False)
    return text.replace("[\n     ", "[").replace("\n    ]", "]").replace(",\n     ", ", ") + "\n"


def load_baseline(file: Path) -> Baseline:
    """Read a baseline. Raises ConfigError if it is damaged or of another format."""
    values = read_json(file)
    if values.get("format") != FORMAT:
        raise other_format(file, values.get("format"), wanted=FORMAT, remedy=ANEW)
    try:
        return Baseline.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise ConfigError(
            f"{file} is no baseline.",
            cause=problems(error, Baseline),
            remedy=ANEW,
        ) from error


def check(
    baseline: Baseline,
    entries: Iterable[IndexEntry],
    drop: AllowedDrop,
    *,
    level: float,
    across: Collection[str],
    tasks: Collection[str],
) -> list[GateResult]:
    """Return the verdict on each group of the baseline, only on ``tasks`` if given.

    Raises ConfigError if the baseline has none of these tasks.
    """
    found = [_as_recorded(entry) for entry in entries]
    now = samples(found, contenders(found))
    groups = [g for g in baseline.groups if not tasks or g.task in tasks]
    if not groups:
        raise ConfigError(
            "The baseline has none of these tasks.",
            remedy="it has " + ", ".join(sorted({g.task for g in baseline.groups})),
        )
    changing = {*MAY_CHANGE, *across}
    before = [group.sample() for group in groups]
    pairings = [_pairing(sample, now, changing) for sample in before]
    tests = [_paired(pairing) for pairing in pairings]
    margins = [drop.of(_mean_of_pairs(s, p.b)) for s, p in zip(before, pairings, strict=True)]
    calls = decide(tests, margins, level)
    return [
        GateResult(sample.contender, pairing, test, margin, call, tuple(_notes(pairing)))
        for sample, pairing, test, margin, call in zip(
            before, pairings, tests, margins, calls, strict=True
        )
    ]


def _as_recorded(entry: IndexEntry) -> IndexEntry:
    """Return a finished, undiverged replay as a run of the agent it repeats, others unchanged.

    This lets the gate test a scorer on what a model wrote earlier, without an API key.
    """
    origin = entry
    for _ in range(MOST_REPLAYS):
        asked, repeats = origin.asked, origin.outcome.replay if origin.outcome else None
        if asked is None or entry.asked is None or (origin.is_replay and repeats is None):
            return entry
        if repeats is None:
            again = entry.asked.model_copy(update={"agent": asked.agent})
            return entry.model_copy(update={"asked": again})
        if repeats.diverged:
            return entry
        origin = read(Path(repeats.of))
    return entry


def _pairing(before: Sample, now: list[Sample], across: Collection[str]) -> Pairing:
    """Match a baseline with the runs of the change.

    If several sets of runs fit, none is chosen: the set most like the baseline may have been made
    before the change.
    """
    mine = [s for s in now if (s.contender, s.task) == (before.contender, before.task)]
    fits = [s for s in mine if not before.differs(s, across)]
    if not mine:
        return Pairing(before.task, before, None, "there are no runs of it")
    if len(fits) > 1:
        names = sorted({name for s in fits[1:] for name in fits[0].differs(s)})
        reason = f"the runs were made under several conditions: {', '.join(names)} differ"
        return Pairing(before.task, before, None, reason)
    return pair([before], mine, across)[0]


def _paired(pairing: Pairing) -> Difference | None:
    if pairing.a is None or pairing.b is None:
        return None
    found = difference(pairing.a, pairing.b)
    return found if found is not None and found.paired else None


def _mean_of_pairs(before: Sample, now: Sample | None) -> float:
    """Return the baseline's mean over the seeds that both have, over all of its own without any."""
    values = before.values
    both = values.keys() & now.values.keys() if now else set()
    return fmean(values[seed] for seed in both or values.keys())


def _notes(pairing: Pairing) -> Iterable[str]:
    a, b = pairing.a, pairing.b
    if pairing.reason or a is None or b is None:
        yield pairing.reason
        return
    yield from pairing.across
    for seed in sorted(a.scores.keys() - b.scores.keys()):
        yield f"seed {seed} has no result: {b.missing.get(seed, 'it was not run')}"
    for name, sample in (("baseline", a), ("now", b)):
        lost = sample.graded - len(sample.valid)
        if lost:
            yield f"{name}: {lost} of {sample.graded} runs invalid, counted as the worst score"


def exit_code(checked: Iterable[GateResult]) -> int:
    """Return 1 if any verdict is "regression", else 5 if any is "cannot tell", else 0."""
    verdicts = {one.verdict for one in checked}
    if "regression" in verdicts:
        return 1
    return 5 if "cannot tell" in verdicts else 0


def as_json(checked: Iterable[GateResult], drop: AllowedDrop, level: float) -> dict[str, Any]:
    """Return the verdicts as JSON values."""
    found = list(checked)
    return {
        "format": 1,
        "exit_code": exit_code(found),
        "max_drop": str(drop),
        "level": level,
        "checks": [
            {
                "task": one.pairing.task,
                "agent": one.who.agent,
                "policy": one.who.policy,
                "setup": one.who.setup,
                "verdict": one.verdict,
                "pairs": one.test.n if one.test else 0,
                "difference": asdict(one.test) if one.test and one.test.n > 1 else None,
                "margin": one.margin,
                "p": one.call.p,
                "power": one.call.power,
                "further_seeds": one.call.further_seeds,
                "notes": list(one.notes),
            }
            for one in found
        ],
    }
