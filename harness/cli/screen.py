"""Shows a live run: a live table on a terminal, plain lines elsewhere.

``Screen`` writes to stderr only; stdout is for results. Text from a submission is cleaned and
shown as plain text, never interpreted.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.base.durations import show_duration
from harness.base.text import clean, quoted
from harness.base.watching import unbreakable
from harness.core.tree import Node
from harness.store.rundir import FINAL, Run
from harness.store.training import SURE_AFTER, Training
from sandboxes.registry import isolates, walls
from scorers.score import Score

OTHER_COLUMNS = 62
"""Characters that all columns except ``what`` need, borders included."""

OTHER_LINES = 7
"""Lines that everything except the rows needs: title, head, borders, footer."""

SAY_EVERY_S = 30.0
"""Seconds between two lines about the same training, where lines are printed."""

TRAININGS = 4
"""The most trainings that are listed under the table."""


@dataclass
class _Row:
    label: str
    operator: str = ""
    parents: str = "–"
    what: str = ""
    state: str = "waiting"
    score: float | None = None
    reason: str = ""
    began: float = 0.0
    seconds: float | None = None
    training: Training | None = None
    said: float = 0.0
    """When the last line about its training was printed, ``time.monotonic``."""


class Screen:
    """Watches one run through its ``observe`` and ``progress`` callbacks; thread-safe."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._rows: dict[str, _Row] = {}
        self._run: Run | None = None
        self._steps = 0
        self._slots = 1
        self._ended = False
        self._pick: Callable[..., Any] = max
        self._began = time.monotonic()
        self._said = ""
        self._percent: dict[str, int] = {}

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self.console, redirect_stdout=False
            )
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        if self._live is not None:
            unbreakable(self._live.stop)()

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far the data preparation is."""
        self._said = f"{what}: {done:,} of {total:,}" if total else what
        # On a terminal the live view shows it; elsewhere a line for every 10 % is enough.
        tenth = 10 * done // total if total else 0
        if self._live is None and self._percent.get(what) != tenth:
            self._percent[what] = tenth
            self._line(self._said)

    def observe(self, what: str, label: str, details: dict[str, Any]) -> None:
        """Handle one event of the run; events without a handler are ignored."""
        with self._lock:
            handler = getattr(self, f"_on_{what}", None)
            if handler is not None:
                handler(label, details)

    def _row(self, label: str) -> _Row:
        return self._rows.setdefault(label, _Row(label))

    def _on_run(self, label: str, details: dict[str, Any]) -> None:
        run: Run = details["run"]
        self._run, self._said = run, ""
        self._steps, self._slots, self._pick = run.asked.steps, run.asked.workers, run.lock.best
        sandbox, held = run.lock.sandbox, isolates(run.lock.sandbox)
        unranked = "" if held else " (scores are not ranked)"
        self._line(f"run {run.path}, sandbox {walls(sandbox, isolated=held)}{unranked}")

    def _on_warning(self, label: str, details: dict[str, Any]) -> None:
        self._say(f"warning: {details['message']}", style="yellow")

    def _on_waiting(self, label: str, details: dict[str, Any]) -> None:
        self._said = details["message"]
        self._say(self._said)

    def _on_writing(self, label: str, details: dict[str, Any]) -> None:
        row = self._row(label)
        row.operator = details["operator"]
        row.parents = ", ".join(str(p) for p in details["parents"]) or "–"
        row.began = time.monotonic()
        row.state = "writing"

    def _on_evaluating(self, label: str, details: dict[str, Any]) -> None:
        row = self._row(label)
        row.what = clean(details["note"], 200, keep="head")
        row.began = time.monotonic()
        row.state = "starting"

    def _on_finalizing(self, label: str, details: dict[str, Any]) -> None:
        row = self._row(FINAL)
        row.operator, row.parents = "retrain", str(details["node"])
        row.what = "the best node again, on the hidden test split"
        row.began = time.monotonic()
        self._line(f"final: retraining node {details['node']}, to be served the test split")

    def _on_queued(self, label: str, details: dict[str, Any]) -> None:
        self._row(label).state = "waiting"

    def _on_training(self, label: str, details: dict[str, Any]) -> None:
        row = self._row(label)
        row.state, row.training = "training", Training(details["limit_s"])
        row.began = row.said = time.monotonic()  # waiting for a GPU does not count

    def _on_progress(self, label: str, details: dict[str, Any]) -> None:
        row = self._row(label)
        if row.training is None or row.state != "training":
            return
        row.training.take(details)
        if self._live is None and time.monotonic() >= row.said + SAY_EVERY_S:
            row.said = time.monotonic()
            self._line(_training_line(row))

    def _on_serving(self, label: str, details: dict[str, Any]) -> None:
        self._row(label).state = "serving"

    def _on_retry(self, label: str, details: dict[str, Any]) -> None:
        self._row(label).state = "retrying"
        self._line(f"{label}: our side broke, trying again: {clean(details['cause'], 300)}")

    def _on_failing(self, label: str, details: dict[str, Any]) -> None:
        self._rows.pop(label, None)
        others = ", ".join(row.label for row in self._rows.values() if row.seconds is None)
        self._say(
            f"node {label} failed: {clean(details['cause'], 300)}\n"
            f"No other is begun; waiting for {others}, which Ctrl-C would stop."
        )

    def _on_exhausted(self, label: str, details: dict[str, Any]) -> None:
        self._rows.pop(label, None)
        self._steps = len(self._rows)
        self._line(details["message"])

    def _on_scored(self, label: str, details: dict[str, Any]) -> None:
        node: Node = details["node"]
        row = self._row(label)
        row.operator = node.operator
        row.parents = ", ".join(str(p) for p in node.parents) or "–"
        row.what = clean(node.note, 200, keep="head")
        row.state = "valid" if node.valid else "invalid"
        row.score, row.reason, row.seconds = node.score, node.reason or "", node.seconds
        outcome = f"{node.score:.4f}" if node.score is not None else f"invalid: {node.reason}"
        best = self._best()
        so_far = f", best so far {best.score:.4f} (node {best.label})" if best else ""
        self._line(
            f"node {label}  {node.operator}  parent {row.parents}  {outcome}  "
            f"{node.seconds:.1f} s{so_far}  [{clean(row.what, 60, keep='head')}]"
        )
        if node.message and not node.valid:
            self._line(quoted(clean(node.message, 600), "    "))

    def _on_ungraded(self, label: str, details: dict[str, Any]) -> None:
        row = self._row(label)
        row.state, row.seconds = "not graded", _spent(row)
        self._say(
            f"node {label}: the judge failed, it is not graded: {clean(details['cause'], 300)}"
        )

    def _on_final(self, label: str, details: dict[str, Any]) -> None:
        score: Score = details["score"]
        row = self._row(FINAL)
        row.operator, row.parents = "retrain", str(details["node"])
        row.state = "valid" if score.valid else "invalid"
        row.score, row.reason = score.score, score.reason or ""
        row.seconds = score.seconds["total"]

    def _best(self) -> _Row | None:
        rows = [r for r in self._rows.values() if r.score is not None and r.label != FINAL]
        best: _Row | None = self._pick(rows, key=lambda r: r.score or 0.0, default=None)
        return best

    def _line(self, text: str) -> None:
        """Print a line where there is no live table, which shows the same."""
        if self._live is None:
            self._say(text)

    def _say(self, text: str, *, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    def _render(self) -> RenderableType:
        try:
            with self._lock:
                if self._run is None:
                    return Text(self._said or "preparing …")
                told = [Text(line, style="cyan") for line in self._trainings()]
                return Group(self._table(), *told, Text(self._footer(), style="dim"))
        except Exception as error:  # noqa: BLE001 (rich's thread calls this, too)
            return Text(f"the display failed ({type(error).__name__}: {error}); the run goes on")

    def _trainings(self) -> list[str]:
        """Return a line per training that reports its progress, at most ``TRAININGS`` of them."""
        rows = [r for r in self._rows.values() if r.state == "training" and r.training]
        lines = [_training_line(row) for row in rows if row.training and row.training.step]
        more = f"… and {len(lines) - TRAININGS} more in training"
        return lines if len(lines) <= TRAININGS else [*lines[:TRAININGS], more]

    def _table(self) -> Table:
        title = Text(self._run.name if self._run else "")  # as Text: brackets in it are no markup
        table = Table(title=title, title_justify="left")
        for name in ("node", "operator", "parent"):
            table.add_column(name, no_wrap=True)
        # Only this column may shrink; otherwise rich would shrink the numbers to nothing.
        room = max(12, self.console.width - OTHER_COLUMNS)
        table.add_column("what", no_wrap=True, overflow="ellipsis", max_width=room)
        table.add_column("score", justify="right", no_wrap=True, min_width=16)
        table.add_column("time", justify="right", no_wrap=True)
        best = self._best()
        for row in self._visible(best):
            mark = " ◀" if row is best else ""
            table.add_row(
                row.label,
                row.operator,
                row.parents,
                Text(row.what),
                _outcome(row, mark),
                show_duration(_spent(row)) if row.began or row.seconds else "",
            )
        return table

    def _visible(self, best: _Row | None) -> list[_Row]:
        """Return the rows that fit: running nodes, the best node, and the newest of the others."""
        rows = list(self._rows.values())
        room = self.console.height - OTHER_LINES - len(self._trainings())
        if self._ended or len(rows) <= room:
            return rows
        must = {row.label for row in rows if row is best or row.seconds is None}
        others = [row.label for row in rows if row.label not in must]
        must.update(others[len(others) - max(0, room - len(must)) :])
        return [row for row in rows if row.label in must]

    def _footer(self) -> str:
        best = self._best()
        parts = [f"best so far {best.score:.4f} (node {best.label})" if best else "no score yet"]
        parts.append(f"{show_duration(time.monotonic() - self._began)} passed")
        left = self._left()
        if left is not None and left >= 1:
            parts.append(f"about {show_duration(left)} left")
        return "  ·  ".join(parts)

    def _left(self) -> float | None:
        """Estimate the seconds left from the mean time of nodes, finished or past SURE_AFTER."""
        done = [r.seconds for r in self._rows.values() if r.seconds]
        guesses = [
            _spent(r) / r.training.share
            for r in self._rows.values()
            if not r.seconds and r.training and r.training.share > SURE_AFTER
        ]
        if not done and not guesses:
            return None
        each = sum(done + guesses) / len(done + guesses)
        begun = [r for r in self._rows.values() if r.state != "writing"]
        nodes_ahead = max(0, self._steps - len([r for r in begun if r.label != FINAL]))
        running = sum(max(0.0, each - _spent(r)) for r in begun if not r.seconds)
        final = 0.0 if FINAL in self._rows else each
        return (nodes_ahead * each + running) / self._slots + final


def _training_line(row: _Row) -> str:
    return row.training.claim(row.label).words(show_duration) if row.training else ""


def _spent(row: _Row) -> float:
    if row.seconds is not None:
        return row.seconds
    return time.monotonic() - row.began if row.began else 0.0


def _outcome(row: _Row, mark: str) -> Text:
    if row.score is not None:
        return Text(f"{row.score:.4f}{mark}", style="bold green" if mark else "green")
    if row.state == "invalid":
        return Text(row.reason, style="red")
    if row.state == "training" and row.training and row.training.share:
        return Text(f"training {100 * row.training.share:.0f} %", style="cyan")
    return Text(row.state, style="cyan")
