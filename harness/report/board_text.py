"""A leaderboard for readers: a grid for each table, its notes, and the runs left out with reasons.

The numbers come from leaderboard.py, the notes from board_notes.py. grid.py writes Markdown and
LaTeX.
"""

import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Literal

from rich import box
from rich.console import Console, JustifyMethod
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from harness.base.numbers import money, number, short_count
from harness.base.text import clean
from harness.report.baselines import by_display_name
from harness.report.board import Board, BoardCell, BoardMetric, BoardRow, Column, Cost, Table
from harness.report.board_csv import csv_of
from harness.report.board_notes import notes_of
from harness.report.drawing.filling import render_template
from harness.report.grid import (
    Format,
    Grid,
    GridRow,
    check_columns,
    key,
    latex,
    markdown,
    with_best_marked,
)
from harness.report.leaderboard import HUMAN
from harness.report.stats.elo import Player
from harness.report.stats.intervals import FEW
from harness.report.terminal import draw, stdout

FIXED = 4
"""Leading columns, the same for all metrics: mark, agent, policy, valid."""
MOST_NAMED = 20
FEW_TASKS = 3
"""With more tasks a cell is one line: the median, and half the width of the interval."""
NAME_WIDTH, POINTS_WIDTH = 28, 18

Layout = Literal["wide", "stacked", "few", "many"]
"""How scores are laid out. wide: one task, in several columns. stacked: one task, in one column.
few: a column a task, cells of several lines. many: a column a task, cells of one line."""

WHAT: dict[BoardMetric, str] = {
    "score": "score",
    "normalized": "normalised score",
    "vsr": "valid submission rate",
    "elo": "Elo",
    "cost": "costs",
}


def show(board: Board, form: Format, columns: Sequence[str]) -> None:
    """Print a board on stdout. CSV has no room for remarks: there they go to stderr.

    ``columns``: which columns to print, in this order; all if empty. Raises ConfigError for a
    column that no table has.
    """
    words = list(_words(board))
    if form == "csv":
        sys.stdout.write(csv_of(board, columns))
        sys.stderr.writelines(f"{clean(word)}\n" for word in words)
        return
    by_task = board.by == "task"
    grids = [_grid(table, board, flat=form == "latex") for table in board.tables]
    if columns and grids:
        check_columns(columns, [key(name) for grid in grids for name in grid.header])
        grids = [grid.only(columns, FIXED if by_task else 0) for grid in grids]
    if form == "table":
        console = stdout()
        said: set[str] = set()
        for grid, table in zip(grids, board.tables, strict=True):
            _draw(console, _fitting(grid, table, board, console.width, bool(columns)), said)
        for word in words:
            console.print(Text(clean(word)))
        return
    if by_task:
        grids = [grid.transposed(FIXED) for grid in grids]
    if form == "latex":
        grids = [grid.without_empty_columns(0) for grid in grids]
    write = {"md": markdown, "latex": latex, "html": html}[form]
    sys.stdout.write(write(grids, words))


def html(grids: Sequence[Grid], words: Sequence[str]) -> str:
    """Return a page that opens offline, with the report's style and Content-Security-Policy."""
    return render_template(
        {"title": "Leaderboard", "grids": grids, "words": words}, "board.html.j2", scripted=False
    )


def _fitting(grid: Grid, table: Table, board: Board, width: int, chosen: bool) -> list[Grid]:
    """Return a table as one grid if it fits the terminal, else as several."""
    if board.by == "task":
        return grid.transposed(FIXED).split(1, width)
    if chosen:
        return grid.split(0, width)
    narrow = _grid(table, board, narrow=True)
    if board.metric == "score":
        grid, narrow = grid.without_empty_columns(FIXED), narrow.without_empty_columns(FIXED)
    return [grid] if grid.width <= width else narrow.split(FIXED, width)


def _draw(console: Console, grids: Sequence[Grid], said: set[str]) -> None:
    """Print one table. Notes in ``said`` stand under an earlier table and are not repeated."""
    for grid in grids:
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for i, name in enumerate(grid.header):
            right = i in grid.numbers
            justify: JustifyMethod = "right" if right else "left"
            drawn.add_column(Text(clean(name)), justify=justify, no_wrap=right, overflow="fold")
        for line in grid.lines:
            style = "dim" if line.dim else ""
            drawn.add_row(*(Text(clean(cell), style=style) for cell in line.cells))
        console.print(Text(clean(grid.title), style="bold"))
        draw(console, drawn)
        fresh = [note for note in grid.notes if note not in said]
        said.update(fresh)
        for note in fresh:
            console.print(Padding(Text(clean(note), style="dim"), (0, 0, 0, 2), expand=False))
        console.print()


def _words(board: Board) -> Iterator[str]:
    if not board.tables:
        yield "No finished run here that ranks. Start one: harness run --task lra/listops"
    if len(board.tables) > 1:
        yield "Different tables were made under different conditions and do not compare."
    left_out = {
        "not graded": [
            ": ".join((r.run, r.state, *r.message.splitlines()[:1])) for r in board.not_graded
        ],
        "a replay, not ranked": [r.run for r in board.replays],
        "skipped": [f"{path}: {problem}" for path, problem in board.skipped.items()],
    }
    for words, items in left_out.items():
        yield from (f"{words}: {item}" for item in items[:MOST_NAMED])
        if len(items) > MOST_NAMED:
            yield f"{words}: {len(items) - MOST_NAMED} more (--format json names all)"


def _grid(table: Table, board: Board, *, narrow: bool = False, flat: bool = False) -> Grid:
    """Return a table as a grid. ``flat``: no layout "few", even with few tasks."""
    tasks, metric = table.tasks, board.metric
    alone = len(tasks) == 1
    layout: Layout = "few" if len(tasks) <= FEW_TASKS and not flat else "many"
    if alone and metric == "score":
        layout = "stacked" if narrow else "wide"
    totals = [_totals(row, metric, layout) for row in table.rows]
    cells = [_cells(row, tasks, metric, layout) for row in table.rows]
    who = {"model": ("agent", ""), "policy": ("policy", "")}.get(board.by, ("agent", "policy"))
    header = ("", *who, "valid", *totals[0], *cells[0])  # the headings are those of each row
    lines = [
        GridRow(
            (
                _mark(i, row),
                _who(row),
                row.policy if row.agent else "",
                _valid(row, with_rate=metric == "score" and layout != "many"),
                *totals[i].values(),
                *cells[i].values(),
            )
        )
        for i, row in enumerate(table.rows)
    ]
    lines = with_best_marked(lines, _signs(header, tasks, metric))
    known = []
    if metric == "score":
        known = [(name, [""] * len(totals[0]) + values) for name, values in _known(tasks)]
    elif metric == "elo" and table.human:
        known = [(HUMAN, _elo(table.human))]
    for name, values in known:
        after = [""] * (len(header) - FIXED - len(values))
        lines.append(GridRow(("", name, "", "", *values, *after), dim=True))
    about = tasks[0].task if alone else f"{len(tasks)} tasks"
    what = tasks[0].metric if alone and metric == "score" else WHAT[metric]
    title = f"{about} · profile {table.conditions.get('profile', '')} · {what}, test split"
    seeds = {header.index("by seed")} if layout == "wide" else set()
    numbers = frozenset(range(FIXED - 1, len(header))) - seeds
    notes = tuple(dict.fromkeys(notes_of(table, metric)))
    return Grid(title, header, numbers, tuple(lines), notes)


def _signs(header: Sequence[str], tasks: Sequence[Column], metric: BoardMetric) -> dict[int, float]:
    """Return the columns that can have a best number: 1 if more is better, -1 if less is."""
    signs = {name: 1.0 for name in ("normalised", "Elo", "VSR", "mean")}
    for task in tasks if metric != "cost" else ():
        down = metric in ("score", "elo") and task.direction == "minimize"
        names = ("median", "best") if len(tasks) == 1 else ()
        signs |= dict.fromkeys((_heading(task.task), *names), -1.0 if down else 1.0)
    return {i: signs[name] for i, name in enumerate(header) if name in signs}


def _heading(task: str) -> str:
    return task.replace("-configurable", "\nconfigurable")


def _who(row: BoardRow) -> str:
    who = row.agent or row.policy
    who += f" ({row.setup})" if row.setup else ""
    return _wrapped(who)


def _wrapped(name: str) -> str:
    return textwrap.fill(name, NAME_WIDTH, break_long_words=False, break_on_hyphens=False)


def _valid(row: BoardRow, *, with_rate: bool) -> str:
    share = row.vsr.share
    rate = f"\nVSR {share:.2f}" if with_rate and share is not None else ""
    return f"{row.valid} of {row.planned}{rate}"


def _mark(place: int, row: BoardRow) -> str:
    if row.value is None:
        return ""
    against = row.against_leader
    return "1" if place == 0 else "≈1" if against and against.same else ""


def _cells(
    row: BoardRow, tasks: Sequence[Column], metric: BoardMetric, layout: Layout
) -> dict[str, str]:
    """Return a row's cells of the tasks, by their headings."""
    if layout == "wide":
        cell = row.cells.get(tasks[0].task)
        return {
            "median": number(cell.median if cell else None),
            "best": number(cell.best if cell else None),
            "95 %": _interval(cell) if cell else "–",
            "by seed": points(cell) if cell else "–",
        }
    found = ((_heading(task.task), row.cells.get(task.task)) for task in tasks)
    return {name: _cell(cell, row, metric, layout) if cell else "" for name, cell in found}


def _cell(cell: BoardCell, row: BoardRow, metric: BoardMetric, layout: Layout) -> str:
    match metric, layout:
        case "score", "stacked":
            return _lines([*_stacked(cell), *_ratings(row)])
        case "score", "few":
            return _lines(_stacked(cell))
        case "score", _:
            return " ".join(filter(None, (number(cell.median), _half(cell))))
        case "normalized", _:
            return number(cell.normalized, 3)
        case "vsr", _:
            return f"{cell.valid} of {cell.graded}"
        case "elo", _:
            return number(cell.median)
        case _:
            return ("\n" if layout == "many" else " / ").join(_costs(cell.cost).values())


def _lines(parts: Sequence[str]) -> str:
    return "\n".join(filter(None, parts))


def _stacked(cell: BoardCell) -> list[str]:
    best = f"best {number(cell.best)}" if cell.valid > 1 else ""
    seeds = textwrap.fill(points(cell), POINTS_WIDTH)
    return [number(cell.median), best, _interval(cell).replace(" [", "\n["), seeds]


def _interval(cell: BoardCell) -> str:
    found = cell.interval
    if not found:
        return ""
    around = f"mean {number(cell.mean)} " if found.of == "mean" else ""
    return f"{around}[{found.low:.4f}, {found.high:.4f}]"


def _half(cell: BoardCell) -> str:
    """Return half the width of the interval, or the points if there is no interval.

    If an end of the scale cuts the interval, return both ends: half of what is left would claim
    more than is known.
    """
    found = cell.interval
    if not found:
        return f"({points(cell)})" if cell.valid > 1 else ""
    low, high = found.low, found.high
    if found.of == "mean" and cell.mean is not None and abs((low + high) / 2 - cell.mean) > 1e-9:
        return f"[{low:.3f}, {high:.3f}]"
    return f"±{(high - low) / 2:.3f}"


def points(cell: BoardCell) -> str:
    """Return the scores by seed, a dash for an invalid run; empty for 1 run, or ``FEW`` or more."""
    found = [s for runs in cell.scores.values() for s in runs]
    if not 1 < len(found) < FEW:
        return ""
    return " ".join(number(score, 3) for score in found)


def _ratings(row: BoardRow) -> list[str]:
    elo = " ".join(filter(None, _elo(row.elo))) if row.elo else ""
    return ["" if row.normalized is None else f"normalised {row.normalized:.3f}",
            elo and f"Elo {elo}"]  # fmt: skip


def _totals(row: BoardRow, metric: BoardMetric, layout: Layout) -> dict[str, str]:
    """Return a row's cells over all tasks, by their headings."""
    normalised, elo = number(row.normalized, 3), _elo(row.elo)
    match metric, layout:
        case "score", "many":
            ratings = {"normalised": normalised, "Elo": " ".join(filter(None, elo))}
            return {"VSR": number(row.vsr.share, 2), **ratings, **_costs(row.cost)}
        case "score", "wide" | "few":
            return {"normalised": normalised, "Elo": _lines(elo), **_costs(row.cost)}
        case "normalized", _:
            return {"mean": normalised}
        case "vsr", _:
            found = row.vsr.interval
            rate = f"{row.vsr.share:.2f} [{found.low:.2f}, {found.high:.2f}]" if found else "–"
            return {"VSR": rate}
        case "elo", _:
            return dict(zip(("Elo", "95 %"), elo, strict=True))
        case _:
            return _costs(row.cost)


def _elo(player: Player | None) -> list[str]:
    if player is None:
        return ["–", ""]
    found = player.interval
    spread = f"[{found.low:.0f}, {found.high:.0f}]" if found else ""
    return [f"{player.elo:.0f}", spread]


def _costs(cost: Cost) -> dict[str, str]:
    return {
        "tokens": "unknown" if cost.tokens is None else short_count(cost.tokens),
        "dollars": dollars(cost),
        "GPU-h": "unknown" if cost.gpu_hours is None else f"{cost.gpu_hours:.3g}",
    }


def dollars(cost: Cost) -> str:
    """Return what runs cost, as text; if a price is unknown, a lower bound or "unknown"."""
    if cost.dollars is not None:
        return money(cost.dollars)
    return f"≥ {money(cost.dollars_known)}" if cost.dollars_known else "unknown"


def _known(tasks: Sequence[Column]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the values by task of each baseline and each published result."""
    names: dict[str, dict[str, str]] = {}
    for task in tasks:
        for name, value in by_display_name(task.task, task.baselines).items():
            names.setdefault(name, {})[task.task] = number(value)
        for reference in task.references:
            mark = " †" if reference.disputed else ""
            names.setdefault(reference.name, {})[task.task] = number(reference.value) + mark
    for name, values in names.items():
        yield _wrapped(name), [values.get(task.task, "") for task in tasks]
