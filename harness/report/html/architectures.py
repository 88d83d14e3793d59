"""Finds the best architectures of many runs, and what they have in common.

Texts are read by the hash that the journal has of them: an architecture that many runs found is
read once. Of a run's journal only two kinds of lines are read, and its chain is not checked here
but in ``nodes``; a text that is not what the journal recorded is left out.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import fmean

from harness.base.files import read_plain
from harness.base.validation import sensible
from harness.report.drawing.bars import Bar, ShareChart, bar, colour_of, share_chart
from harness.report.html.figures import better, by_conditions, sign_of
from harness.report.html.traces import Trace
from harness.report.samples import contenders
from harness.store.index import IndexEntry
from harness.store.journal import unchecked
from tasks import architecture
from tasks.definition import Definition
from tasks.spec import all_tasks

MOST_ROWS = 20
"""Architectures in the table, and in each chart of shares."""
MOST_CHARTS = 8
MOST_READ = 5_000
"""Different texts that are read, the best first."""
MOST_TEXT_BYTES = 64 << 10
NAMED = 3
"""Agents that a row names."""


@dataclass(slots=True)
class FoundArchitecture:
    """One architecture: its search score in each run that found it, and its test scores."""

    layers: tuple[str, ...]
    search: dict[str, float] = field(default_factory=dict)
    test: list[float] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The mean search score over the runs that found it: each run has a seed of its own."""
        return fmean(self.search.values())


@dataclass(frozen=True, slots=True)
class ArchitectureRow:
    """One line of the table. ``test`` is the mean over ``tested`` runs, None without one."""

    bar: Bar
    search: float
    runs: int
    test: float | None
    tested: int
    agents: str


@dataclass(frozen=True, slots=True)
class ArchitectureTable:
    """The best different architectures of a task under one set of conditions."""

    name: str
    better: str
    distinct: int
    runs: int
    legend: tuple[tuple[str, int], ...]
    rows: tuple[ArchitectureRow, ...]
    shares: tuple[tuple[str, ShareChart], ...]
    """Of all agents together, then of each, best first."""


@dataclass(frozen=True, slots=True)
class Alphabet:
    """What a task's architectures are made of, and the file that holds them."""

    file: str
    primitives: tuple[str, ...]

    def read(self, text: str) -> tuple[str, ...]:
        """Return the layers in a text; () if it is no architecture."""
        with suppress(architecture.Misread):
            return architecture.names(text, self.primitives)
        return ()


def alphabets(entries: Iterable[IndexEntry]) -> dict[str, Alphabet]:
    """Return the alphabets of the runs' tasks whose submissions are architectures, by task."""
    known = all_tasks()
    wanted = {e.asked.task for e in entries if e.asked}
    return {n: a for n in wanted & known.keys() if (a := _alphabet(known[n].definition))}


def _alphabet(definition: Definition) -> Alphabet | None:
    sequence = definition.sequence
    return Alphabet(definition.files[0], sequence.primitives) if sequence else None


def tables(
    traces: Sequence[Trace], known: Mapping[str, Alphabet]
) -> tuple[list[ArchitectureTable], list[str]]:
    """Return a table for each task with architectures and each set of conditions, and notes."""
    made, notes = [], []
    for name, group in by_conditions(traces):
        asked = group[0].entry.asked
        if asked is None or asked.task not in known:
            continue
        found, unread = _collect(group, known[asked.task])
        if unread:
            notes.append(
                f"{name}: of {unread + MOST_READ:,} different submissions the {MOST_READ:,} best "
                "were read for the table of architectures."
            )
        if found:
            made.append(_table(name, group, found, known[asked.task].primitives))
    return made, notes


def _collect(group: Sequence[Trace], alphabet: Alphabet) -> tuple[list[FoundArchitecture], int]:
    """Return the architectures of runs, best first, and how many texts were not read."""
    sign = sign_of(group[0].entry)
    by_hash: dict[str, list[tuple[Trace, int, float]]] = defaultdict(list)
    for run in group:
        for node, (text, score) in _scored_texts(run, alphabet.file).items():
            by_hash[text].append((run, node, score))
    order = sorted(by_hash, key=lambda t: (-sign * fmean(s for _, _, s in by_hash[t]), t))
    found: dict[tuple[str, ...], FoundArchitecture] = {}
    for wanted in order[:MOST_READ]:
        layers = _layers(wanted, by_hash[wanted], alphabet)
        if not layers:
            continue
        one = found.setdefault(layers, FoundArchitecture(layers))
        for run, node, score in by_hash[wanted]:
            one.search.setdefault(run.entry.path, score)
            outcome = run.entry.outcome
            if outcome and outcome.node == node and outcome.score is not None:
                one.test.append(outcome.score)
    ranked = sorted(found.values(), key=lambda f: (-sign * f.score, f.layers))
    # A forged run may have another length; shares by layer are of one.
    alike = [one for one in ranked if len(one.layers) == len(ranked[0].layers)]
    return alike, max(0, len(order) - MOST_READ)


def _scored_texts(run: Trace, file: str) -> dict[int, tuple[str, float]]:
    """Return hash and search score of each valid submission, by node; none of a damaged journal."""
    texts: dict[int, str] = {}
    scores: dict[int, float] = {}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        for event in unchecked(Path(run.entry.path) / "events.jsonl", "written", "scored"):
            node, score = event["node"], event.get("score")
            if not isinstance(node, int):
                raise TypeError(node)
            if event["event"] == "written":
                texts[node] = str(event["files"].get(file, ""))
            elif sensible(score) and event.get("valid") is True:
                scores[node] = float(score)  # type: ignore[arg-type]
        return {node: (texts[node], score) for node, score in scores.items() if node in texts}
    return {}


def _layers(
    wanted: str, places: Sequence[tuple[Trace, int, float]], alphabet: Alphabet
) -> tuple[str, ...]:
    """Return the architecture with a hash, from the first place that still has it; () if none."""
    for run, node, _ in places:
        file = Path(run.entry.path) / "nodes" / f"{node:04d}" / alphabet.file
        with suppress(OSError, UnicodeDecodeError):
            text = read_plain(file, most=MOST_TEXT_BYTES)
            if sha256(text).hexdigest() == wanted:
                return alphabet.read(text.decode())
    return ()


def _table(
    name: str, group: Sequence[Trace], found: Sequence[FoundArchitecture], primitives: Sequence[str]
) -> ArchitectureTable:
    owner = {path: str(who) for path, who in contenders([t.entry for t in group]).items()}
    runs = {t.entry.path for t in group}
    outcome = next((t.entry.outcome for t in group if t.entry.outcome), None)
    metric = outcome.metric.replace("_", " ") if outcome else "score"
    agents = dict.fromkeys(owner[path] for one in found for path in one.search)
    tops = {who: [f for f in found if any(owner[p] == who for p in f.search)] for who in agents}
    shares = {"all agents": list(found)} | (tops if len(tops) > 1 else {})
    return ArchitectureTable(
        name,
        f"{metric}, {better(sign_of(group[0].entry))}",
        len(found),
        len(runs),
        tuple((p, colour_of(p, primitives)) for p in primitives),
        tuple(_row(one, owner, primitives) for one in found[:MOST_ROWS]),
        tuple(
            (who, share_chart([f.layers for f in best[:MOST_ROWS]], primitives))
            for who, best in list(shares.items())[: MOST_CHARTS + 1]
        ),
    )


def _row(
    one: FoundArchitecture, owner: Mapping[str, str], primitives: Sequence[str]
) -> ArchitectureRow:
    agents = list(dict.fromkeys(owner[path] for path in one.search))
    more = len(agents) - NAMED
    return ArchitectureRow(
        bar(one.layers, primitives),
        one.score,
        len(one.search),
        fmean(one.test) if one.test else None,
        len(one.test),
        ", ".join(agents[:NAMED]) + (f" and {more} more" if more > 0 else ""),
    )
