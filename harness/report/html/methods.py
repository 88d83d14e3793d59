"""Writes the table of conditions, and a methods paragraph ready for a paper."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.base.numbers import counted
from harness.core.asked import Asked, Lockfile
from harness.report.board import Board
from harness.report.samples import told
from harness.report.stats.intervals import FEW
from harness.store.index import IndexEntry
from sandboxes.none import NO_SANDBOX


def conditions(known: Sequence[IndexEntry], board: Board) -> list[tuple[str, str]]:
    """Return the runs' conditions as (name, values); where runs differ, up to 12 values."""
    found: dict[str, set[Any]] = defaultdict(set)
    for entry in known:
        asked, lock = entry.asked, entry.lock
        if asked is None or lock is None:
            continue
        found["tasks"].add(f"{asked.task} ({lock.task_hash})")
        found["data"].add(lock.data_hash)
        found["profile"].add(asked.profile)
        found["agents"].add(asked.agent)
        found["policies"].add(_settings(asked.policy, lock.policy))
        found["steps"].add(asked.steps)
        found["workers"].add(asked.workers)
        found["sandbox"].add(
            f"{lock.sandbox}{', NOT ISOLATED' if lock.sandbox == 'process' else ''}"
        )
        found["scorer"].add(lock.scorer)
        found["hardware"].add(_hardware(lock))
        found["versions"].add(", ".join(f"{k} {v}" for k, v in sorted(lock.versions.items())))
        found["harness"].add(lock.harness)
        found["seeds"].add(asked.seed)
        found["blind"].add("yes" if told(asked) else "no")
    if found["blind"] == {"no"}:
        del found["blind"]
    rows = [(name, _listed(values)) for name, values in found.items()]
    if any(not table.ranked for table in board.tables):
        rows.append(("ranked", "no: this profile is for tests, its scores mean nothing elsewhere"))
    return rows


def _judged(boxes: set[str], hardware: str, scorers: str, metric: str) -> Iterator[str]:
    """Yield how submissions were judged, by the sandboxes that the runs used."""
    if boxes - {NO_SANDBOX.name}:
        yield (
            "Each submission was trained and served in a fresh sandbox "
            f"({_listed(boxes - {NO_SANDBOX.name})}) on {hardware}; a judge outside of it, which "
            f"never runs submitted code (scorer {scorers}), asked for predictions and computed the "
            f"{metric} itself."
        )
    if NO_SANDBOX.name in boxes:
        yield (
            "No code was submitted: each submission is an architecture, which the judge (scorer "
            f"{scorers}) trained by code of its own on {hardware}, several at a time where several "
            f"waited, and measured the {metric}."
        )


def _who(asked: Asked) -> str:
    blind = ", told neither the names of the task nor of its layers" if told(asked) else ""
    return f"{asked.agent} with the {asked.policy} policy{blind}"


def _settings(name: str, values: dict[str, float | int | str]) -> str:
    inside = ", ".join(f"{k} {v}" for k, v in sorted(values.items()))
    return f"{name} ({inside})" if inside else name


def _hardware(lock: Lockfile) -> str:
    return " ".join(map(str, lock.hardware.values()))


def _listed(values: Iterable[Any], most: int = 12) -> str:
    """Return the different values in order, and how many more there are than ``most``."""
    words = [str(value) for value in sorted(set(values))]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def paragraphs(known: Sequence[IndexEntry]) -> list[str]:
    """Return the methods in sentences, one paragraph per profile and metric; without replays."""
    groups: dict[tuple[str, str], list[IndexEntry]] = defaultdict(list)
    metrics = {e.asked.task: e.outcome.metric for e in known if e.asked and e.outcome}
    for entry in known:
        if entry.asked is not None and not entry.is_replay:
            metric = metrics.get(entry.asked.task, "score")
            groups[entry.asked.profile, metric].append(entry)
    return [_paragraph(*group, runs) for group, runs in sorted(groups.items())]


def _paragraph(profile: str, metric: str, runs: Sequence[IndexEntry]) -> str:
    asked = [e.asked for e in runs if e.asked]
    locks = [e.lock for e in runs if e.lock]
    outcomes = [e.outcome for e in runs if e.outcome]
    seeds = {a.seed for a in asked}
    agents = _listed((_who(a) for a in asked), 20)
    hardware = _listed(map(_hardware, locks))
    boxes = {k.sandbox for k in locks}
    scorers = _listed(k.scorer for k in locks)
    pairs = [(e.asked, e.lock) for e in runs if e.asked and e.lock]
    tasks = _listed((f"{a.task} (task {k.task_hash}, data {k.data_hash})" for a, k in pairs), 20)
    valid = sum(o.valid for o in outcomes)
    sentences = [
        f"Submissions for {tasks} in the profile {profile} were written by {agents}, "
        f"with at most {_listed(a.steps for a in asked)} nodes a run and "
        f"{counted(len(seeds), 'seed')} ({_listed(seeds)}).",
        *_judged(boxes, hardware, scorers, metric.replace("_", "-")),
        "Nodes were scored on a search split. The node with the best search score of each run was "
        "retrained once with a seed of its own and scored on a test split that neither agent nor "
        "submission had seen; that number is the run's score.",
        f"{len(outcomes)} of {len(runs)} runs were graded; {valid} ended with a valid submission.",
    ]
    if len(seeds) > 1:
        sentences.append(
            f"Intervals are 95 % over seeds: Student's t of the mean below {FEW} runs, an expanded "
            f"percentile bootstrap of the median from {FEW} on."
        )
    versions = _listed(f"{name} {v}" for k in locks for name, v in k.versions.items())
    sentences.append(f"harness {_listed(k.harness for k in locks)}; {versions}.")
    return " ".join(sentences)
