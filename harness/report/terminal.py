"""Prints tables and text on stdout without ever cutting a name or a number."""

import os
from collections.abc import Collection, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

ENDLESS = 100_000
INDENT = 2
"""Indent of the line below a name, if no name fits beside the other columns."""


def stdout() -> Console:
    """Return a console as wide as the terminal; a pipe or a file has no width."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = ENDLESS
    return console


def draw(console: Console, table: Table) -> None:
    """Print a table, wider than the terminal if its least width does not fit."""
    console.print(table, width=max(console.width, min_width(console, table)), crop=False)


def min_width(console: Console, table: Table) -> int:
    """Return the least width of a table, in characters, at which nothing in it is cut.

    Sets ``min_width`` of its columns: the full text for ``no_wrap``, else the longest word.
    """
    endless = console.options.update(max_width=ENDLESS)
    for column in table.columns:
        sizes = [Measurement.get(console, endless, c) for c in (column.header, *column.cells)]
        column.min_width = max(s.maximum if column.no_wrap else s.minimum for s in sizes)
    return Measurement.get(console, endless, table).minimum


def name_column(
    header: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str]]],
    width: int,
    left: Collection[str] = (),
) -> list[list[str]]:
    """Return a block of lines for the heading and one for each row; names are the first column.

    A name is never cut: it has a line of its own if the other columns leave no room for it. The
    other columns are right-aligned, except those in ``left``.
    """
    head, *others = header
    sizes = [max(map(cell_len, (n, *(r[i] for _, r in rows)))) for i, n in enumerate(others)]
    room = width - sum(sizes) - 2 * len(sizes)
    every = [cell_len(name) for name in (head, *(name for name, _ in rows))]
    lead = max((size for size in every if size <= room), default=INDENT)

    def block(name: str, cells: Sequence[str]) -> list[str]:
        alone = cell_len(name) > lead
        text = [set_cell_size("" if alone else name, lead)]
        for column, cell, size in zip(others, cells, sizes, strict=True):
            gap = " " * (size - cell_len(cell))
            text.append(cell + gap if column in left else gap + cell)
        return [name, "  ".join(text).rstrip()] if alone else ["  ".join(text).rstrip()]

    return [block(head, others), *(block(name, cells) for name, cells in rows)]
