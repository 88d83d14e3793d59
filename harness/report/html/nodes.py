"""Prepares a run's tree for the page: a row and a mark per node, its texts in the pool."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.base.errors import ConfigError
from harness.base.text import visible
from harness.core.tree import Node
from harness.report.drawing.bars import Bar, bar
from harness.report.drawing.plots import AxisScale, Tick, spread, without_outliers
from harness.report.drawing.untrusted import cut, text_of
from harness.report.html.architectures import Alphabet
from harness.report.html.pool import Pool
from harness.store.loading import load
from harness.store.rundir import FINAL
from harness.store.state import RunState
from sandboxes.registry import walls
from scorers.score import Score

MAP_LEFT, MAP_RIGHT, MAP_TOP, MAP_FLOOR = 56, 948, 12, 246
INVALID_Y = 266
NOTE = 80


@dataclass(frozen=True, slots=True)
class TextLimits:
    """How many characters of each of a node's texts a report holds."""

    file: int
    log: int
    prompt: int
    answer: int


TEXT_LIMITS = (
    TextLimits(65_536, 16_384, 65_536, 32_768),
    TextLimits(65_536, 4_096, 16_384, 8_192),
    TextLimits(32_768, 1_024, 4_096, 2_048),
    TextLimits(8_192, 512, 0, 512),
    TextLimits(1_024, 256, 0, 0),
    TextLimits(0, 0, 0, 0),
)
"""From the most text to none: the page uses the first that fits."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node in the list and on the map."""

    number: int
    level: int
    operator: str
    outcome: str
    state: str
    note: str
    best: bool
    final: bool
    x: float
    y: float
    bar: Bar | None
    """Its architecture, if it is one."""


@dataclass(frozen=True, slots=True)
class View:
    """One run's tree. ``edges`` and ``lineage`` are SVG paths."""

    title: str
    path: Path
    rows: tuple[NodeRow, ...]
    edges: str
    lineage: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    state: RunState

    @property
    def cells(self) -> int:
        """How many layers are drawn beside its nodes."""
        return sum(row.bar.layers for row in self.rows if row.bar)


def without_bars(found: View) -> View:
    """Return a tree without the bars of its nodes."""
    return replace(found, rows=tuple(replace(row, bar=None) for row in found.rows))


def view(run: Path, title: str, alphabet: Alphabet | None = None) -> View:
    """Read a run's tree. Raises ConfigError where its journal or a submission is damaged.

    ``alphabet``: what its submissions are made of, if they are architectures.
    """
    state = load(run).state
    tree = state.tree
    best, last = tree.best(), max(len(tree) - 1, 1)
    scores = [n.score for n in tree if n.score is not None]
    kept = without_outliers(scores, "high" if tree.maximize else "low")
    y = spread(kept, MAP_FLOOR, MAP_TOP)
    x = AxisScale(0, last, MAP_LEFT + 8, MAP_RIGHT - 8)
    places = {
        n.number: (x(n.number), y(n.score) if n.score is not None else INVALID_Y) for n in tree
    }
    rows = tuple(
        NodeRow(
            node.number,
            level,
            node.operator,
            _outcome(node),
            "valid" if node.score is not None else "invalid" if node.buggy else node.state,
            visible(node.note).replace("\n", " ")[:NOTE],
            node is best,
            node.number == state.finalist,
            *places[node.number],
            _bar(node, alphabet),
        )
        for node, level in _outline(state)
    )
    edges = "".join(
        _edge(places[p], places[n.number]) for n in tree for p in n.parents if p in places
    )
    return View(
        title,
        run,
        rows,
        edges,
        _lineage(state, best, places),
        tuple(t for t in x.ticks(8) if "." not in t.label),
        y.ticks(5) if scores else (),
        state,
    )


def _bar(node: Node, alphabet: Alphabet | None) -> Bar | None:
    layers = alphabet.read(node.files.get(alphabet.file, "")) if alphabet and node.valid else ()
    return bar(layers, alphabet.primitives) if alphabet and layers else None


def _outcome(node: Node) -> str:
    if node.score is not None:
        return f"{node.score:.4f}"
    return visible(node.reason or "invalid")[:NOTE] if node.buggy else node.state


def _outline(state: RunState) -> list[tuple[Node, int]]:
    """Return nodes with their depth, each after its first parent. Not recursive."""
    tree = state.tree
    children: dict[int | None, list[Node]] = {}
    for node in tree:
        children.setdefault(node.parents[0] if node.parents else None, []).append(node)
    stack = [(node, 1) for node in reversed(children.get(None, []))]
    rows = []
    while stack:
        node, level = stack.pop()
        rows.append((node, level))
        stack += [(child, level + 1) for child in reversed(children.get(node.number, []))]
    return rows


def _edge(a: tuple[float, float], b: tuple[float, float]) -> str:
    if a[1] == b[1]:  # between two invalid nodes, on one line: an arc shows which two it joins
        return f"M{a[0]} {a[1]}Q{(a[0] + b[0]) / 2:.1f} {a[1] - 24} {b[0]} {b[1]}"
    return f"M{a[0]} {a[1]}L{b[0]} {b[1]}"


def _lineage(state: RunState, best: Node | None, places: dict[int, tuple[float, float]]) -> str:
    path, node = "", best
    while node is not None and node.parents:
        parent = state.tree[node.parents[0]]
        path += _edge(places[parent.number], places[node.number])
        node = parent
    return path


def details(found: View, pool: Pool, caps: TextLimits) -> list[dict[str, Any]]:
    """Return every node as the page's script reads it; its texts go into the pool."""
    run, tree = found.path, found.state.tree
    nodes = []
    # In the order of the outline, a text is near the text that it repeats.
    for row in found.rows:
        node = tree[row.number]
        folder = f"nodes/{node.number:04d}"
        about: dict[str, Any] = {
            "n": node.number,
            "op": node.operator,
            "parents": list(node.parents),
            "outcome": row.outcome,
            "state": row.state,
            "note": cut(visible(node.note), 2_000),
            "message": cut(visible(node.message), 2_000, keep_end=True),
            "seconds": round(node.seconds, 1),
            "x": row.x,
            "y": row.y,
        }
        if node.knobs:
            about["knobs"] = {visible(k): visible(str(v)) for k, v in node.knobs.items()}
        if node.analysis:
            about["analysis"] = cut(visible(node.analysis), 2_000)
        about["files"] = {
            visible(name): pool.add(cut(visible(text), caps.file))
            for name, text in node.files.items()
        }
        for name, file, limit, keep_end in (
            ("prompt", "prompt.md", caps.prompt, False),
            ("answer", "completion.md", caps.answer, False),
            ("log", "stdout.log", caps.log, True),
        ):
            text = text_of(run, f"{folder}/{file}")
            if text:
                about[name] = pool.add(cut(text, limit, keep_end=keep_end))
        evidence = _evidence(text_of(run, f"{folder}/score.json"))
        if evidence:
            about["evidence"] = evidence
        if row.final:
            final = _evidence(text_of(run, f"{FINAL}/score.json"))
            if final:
                about["final"] = final
        nodes.append(about)
    return nodes


def _evidence(text: str | None) -> dict[str, Any] | None:
    """Return what the judge recorded besides the score; None if missing or damaged."""
    if text is None:
        return None
    try:
        score = Score.model_validate(json.loads(text))
    except (ValueError, RecursionError, ConfigError):
        return None
    facts = {
        "metric": f"{score.metric} on {score.rows:,} {score.conditions.split} rows",
        "standard error": score.standard_error,
        "measured before the audits": score.measured if not score.valid else None,
        "audit resolution": score.resolution,
        "strict": score.strict,
        "peak memory": f"{score.peak_memory_mb:,} MiB" if score.peak_memory_mb else None,
        "seconds": ", ".join(f"{k} {v:g}" for k, v in score.seconds.items()),
        "sandbox": walls(score.conditions.sandbox, isolated=score.conditions.isolated),
        "measures": ", ".join(f"{k} {v:.4g}" for k, v in score.measures.items()),
        "trained together with": ", ".join(score.companions),
        "walls not held": ", ".join(score.conditions.unenforced),
        "training seed": str(score.conditions.training_seed),
        "GPUs": "; ".join(f"{g.uuid}: {g.verdict}" for g in score.conditions.gpus),
        "submission": score.submission,
    }
    claims = [(visible(k)[:80], cut(visible(str(v)), 200)) for k, v in score.claim.items()]
    return {
        "audits": [
            [visible(a.name), a.passed, _number(a.value), _number(a.threshold), visible(a.power)]
            for a in score.audits
        ],
        "facts": [[k, cut(visible(f"{v}"), 400)] for k, v in facts.items() if v not in (None, "")],
        "claims": claims[:40],
    }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
