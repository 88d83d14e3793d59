"""Tables and words on stdout, of which no name and no number is ever cut."""

import os
from collections.abc import Collection, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

ENDLESS = 100_000
INDENT = 2
"""Characters before what stands below a name, where none fits beside it."""


def stdout() -> Console:
    """Return a console as wide as the terminal; a pipe or a file has no width."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = ENDLESS
    return console


def draw(console: Console, table: Table) -> None:
    """Print a table; where not even its ``no_wrap`` columns fit, wider than the terminal."""
    console.print(table, width=max(console.width, least(console, table)), crop=False)


def least(console: Console, table: Table) -> int:
    """Return the characters that a table takes at least, if nothing in it is cut.

    Its ``no_wrap`` columns are made as wide as they are; others as wide as their longest word.
    """
    endless = console.options.update(max_width=ENDLESS)
    for column in table.columns:
        sizes = [Measurement.get(console, endless, c) for c in (column.header, *column.cells)]
        column.min_width = max(s.maximum if column.no_wrap else s.minimum for s in sizes)
    return Measurement.get(console, endless, table).minimum


def named(
    header: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str]]],
    width: int,
    left: Collection[str] = (),
) -> list[list[str]]:
    """Return a heading and a block of lines a row, the first of ``header`` being its name's.

    A name stands whole: in a line of its own where the other columns leave no room beside them.
    Those are set to the right, but for the ones in ``left``.
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
