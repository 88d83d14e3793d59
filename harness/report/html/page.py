"""Writes the report of runs as one HTML file.

Text from a run is either escaped by the templates, or is in a packed block that the page's script
turns into text nodes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.base.errors import ConfigError
from harness.base.files import replacing
from harness.base.numbers import counted
from harness.base.text import visible
from harness.report import board_text, leaderboard
from harness.report.baselines import baselines_of_entry
from harness.report.drawing.filling import render_template
from harness.report.features import report as features
from harness.report.html import architectures, methods, picks
from harness.report.html.figures import figures, sign_of
from harness.report.html.nodes import TEXT_LIMITS, View, details, view, without_bars
from harness.report.html.pool import Pool, packed
from harness.report.html.traces import Trace, trace, with_calls
from harness.report.summary import spread_of_rows
from harness.store.index import IndexEntry

MOST_BYTES = 1_900_000
"""Limit of the whole file: under 2 MB, which fits in a mail and in a phone's browser."""
MOST_TREES = 12
MOST_NODES = 2_000
"""Limit of all trees together: a node's row and mark are 400 bytes, twice that at worst."""
MOST_CELLS = 32_000
"""Limit of the layers that are drawn beside nodes: a cell is 7 bytes."""
MOST_CALLS = 5_000
"""With more nodes, calls are not read for tokens and dollars, as each call is a file."""


@dataclass
class LeftOut:
    """The runs that the page does not show, with the reason, and notes. The page prints both."""

    runs: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write(entries: Sequence[IndexEntry], out: Path) -> dict[str, Any]:
    """Write the report of runs; return its size and what it left out. Raises ConfigError."""
    text, left = render(entries)
    content = text.encode()
    try:
        with replacing(out) as part:
            part.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written.", cause=str(error)) from error
    return {
        "format": 1,
        "file": str(out),
        "bytes": len(content),
        "runs": len(entries) - len(left.runs),
        "left_out": [{"run": run, "why": why} for run, why in left.runs],
        "notes": left.notes,
    }


def render(entries: Sequence[IndexEntry]) -> tuple[str, LeftOut]:
    """Return the page. Raises ConfigError where there is no run to show."""
    left = LeftOut()
    readable = [e for e in entries if e.asked is not None and e.lock is not None]
    left.runs += [(e.path, e.problem) for e in entries if e.asked is None or e.lock is None]
    if not readable:
        raise ConfigError(
            "There is no run to report.",
            cause="; ".join(f"{path}: {why}" for path, why in left.runs[:5]),
            remedy="harness ls",
        )
    traces = _traces(readable, left)
    board = leaderboard.build(readable)
    drawn = figures(traces)
    known = architectures.alphabets(readable)
    found, notes = architectures.tables(traces, known)
    left.notes += notes
    views = _views(traces, known, left)
    kinds, _ = features.build(v.path for v in views)
    values = {
        "title": _title(readable),
        "single": _single(readable[0]) if len(readable) == 1 else None,
        "points": board_text.points,
        "dollars": board_text.dollars,
        "board": board,
        "tasks": drawn,
        "architectures": found,
        "picks": picks.tables(traces) if len(readable) > 1 else [],
        "views": views,
        "features": [(k, features.plot(k)) for k in kinds if k.rows],
        "conditions": methods.conditions(readable, board),
        "methods": methods.paragraphs(readable),
        "left": left,
    }
    return _fitted(values, views, left)


def _fitted(values: dict[str, Any], views: Sequence[View], left: LeftOut) -> tuple[str, LeftOut]:
    """Return the page with as much of the nodes' texts as the size limit allows."""
    page = render_template({**values, "payload": ""})
    room = MOST_BYTES - len(page.encode())
    payload = ""
    for caps in TEXT_LIMITS:
        pool = Pool()
        runs = [{"title": visible(v.title), "nodes": details(v, pool, caps)} for v in views]
        payload = packed({"lines": pool.lines, "runs": runs})
        if len(payload) <= room:
            break
    if caps is not TEXT_LIMITS[0]:
        left.notes.append(
            f"Texts of nodes are cut to {caps.file:,} characters of source, {caps.log:,} of log, "
            f"{caps.prompt:,} of prompt and {caps.answer:,} of answer, so that this file stays "
            "under 2 MB; the run directory holds all of them."
        )
    # Markup: base64 needs no escaping, and must not be cut like other long values.
    return render_template({**values, "payload": Markup(payload)}), left  # noqa: S704


def _traces(readable: Sequence[IndexEntry], left: LeftOut) -> list[Trace]:
    found = [trace(entry) for entry in readable]
    nodes = sum(len(t.points) for t in found)
    if nodes <= MOST_CALLS:
        found = [with_calls(t) for t in found]
    else:
        left.notes.append(
            f"Curves against tokens and dollars are left out: {nodes:,} nodes are more than the "
            f"{MOST_CALLS:,} whose calls are read."
        )
    for t in found:
        if t.problem and not t.points:
            left.runs.append((t.entry.path, t.problem))
        elif t.problem:
            left.notes.append(f"{t.entry.path}: {t.problem}")
    return found


def _views(
    traces: Sequence[Trace], known: Mapping[str, architectures.Alphabet], left: LeftOut
) -> list[View]:
    """Return the trees to show: each contender's best run first, then the other runs.

    ``known``: by task, what the architectures are made of that are drawn beside nodes.
    """
    views: list[View] = []
    nodes = cells = bare = 0
    wanted = _by_interest([t for t in traces if t.points])
    for found in wanted:
        if len(views) == MOST_TREES or (views and nodes + len(found.points) > MOST_NODES):
            break
        try:
            tree = view(Path(found.entry.path), _name(found.entry), _alphabet(found, known))
        except ConfigError as error:
            left.runs.append((found.entry.path, f"its tree cannot be read: {str(error)[:300]}"))
            continue
        if nodes + len(tree.rows) <= MOST_NODES:
            if cells + tree.cells > MOST_CELLS:
                tree, bare = without_bars(tree), bare + 1
            views.append(tree)
            nodes += len(tree.rows)
            cells += tree.cells
    if bare:
        left.notes.append(
            f"The nodes of {counted(bare, 'run')} have no bars beside them: at most {MOST_CELLS:,} "
            "layers are drawn there."
        )
    missing = len(wanted) - len(views)
    if missing > 0:
        left.notes.append(
            f"The trees of {len(views)} of {len(wanted)} runs are shown, the best of each agent "
            f"first (at most {MOST_TREES} runs and {MOST_NODES:,} nodes a file). For another: "
            "harness report RUN"
        )
    return views


def _alphabet(
    found: Trace, known: Mapping[str, architectures.Alphabet]
) -> architectures.Alphabet | None:
    return known.get(found.entry.asked.task) if found.entry.asked else None


def _by_interest(traces: Sequence[Trace]) -> list[Trace]:
    """Order runs: the best of each contender and task, then the second best of each, …"""
    groups: dict[tuple[str, str, str], list[Trace]] = defaultdict(list)
    for found in traces:
        asked = found.entry.asked
        if asked is not None:
            groups[asked.task, asked.agent, asked.policy].append(found)
    columns = [sorted(group, key=_rank) for _, group in sorted(groups.items())]
    return [found for row in zip_longest(*columns) for found in row if found is not None]


def _rank(found: Trace) -> tuple[bool, float, str]:
    score = found.entry.outcome.score if found.entry.outcome else None
    sign = sign_of(found.entry)
    return score is None, -sign * (score or 0.0), found.entry.path


def _name(entry: IndexEntry) -> str:
    asked = entry.asked
    assert asked is not None  # noqa: S101 (callers pass readable runs)
    return f"{asked.task} {asked.profile}, {asked.agent} x {asked.policy}, seed {asked.seed}"


def _title(readable: Sequence[IndexEntry]) -> str:
    if len(readable) == 1:
        return _name(readable[0])
    asked = [e.asked for e in readable if e.asked]
    tasks = sorted({f"{a.task} {a.profile}" for a in asked})
    agents = {(a.agent, a.policy) for a in asked}
    on = ", ".join(tasks) if len(tasks) < 4 else f"{len(tasks)} tasks"
    return f"{len(readable)} runs of {counted(len(agents), 'agent')} on {on}"


def _single(entry: IndexEntry) -> dict[str, Any]:
    """Return the values for the head of a single run's page."""
    outcome = entry.outcome
    return {
        "outcome": outcome,
        "state": entry.state,
        "problem": entry.problem,
        "spread": spread_of_rows(outcome.score, outcome.standard_error, outcome.metric)
        if outcome
        else "",
        "pick": picks.pick_of(entry),
        "baselines": list(baselines_of_entry(entry).items()),
    }
