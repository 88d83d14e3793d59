"""Tables and words on stdout, of which no name and no number is ever cut."""

import os

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

ENDLESS = 100_000


def stdout() -> Console:
    """Return a console as wide as the terminal; a pipe or a file has no width."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = ENDLESS
    return console


def draw(console: Console, table: Table) -> None:
    """Print a table; where not even its ``no_wrap`` columns fit, wider than the terminal."""
    least = Measurement.get(console, console.options.update(max_width=ENDLESS), table).minimum
    console.print(table, width=max(console.width, least), crop=False)
