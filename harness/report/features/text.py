"""Prints the table of features on a terminal."""

from collections.abc import Iterable, Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from harness.base.text import clean
from harness.report.features.report import FeatureTable
from harness.report.terminal import draw, stdout

MOST_ROWS = 40
HEADER = ("what changed", "steps", "gain", "95 %", "alone", "bad")
"""``gain`` is the median; ``alone``: steps in which nothing else changed; ``bad``: children that
became invalid."""


def show(tables: Iterable[FeatureTable], skipped: Mapping[str, str], *, each: bool) -> None:
    """Print a table per task: a row per category, or, with ``each``, a row per feature."""
    console = stdout()
    for table in tables:
        rows = table.features if each else table.rows
        drawn = Table(
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            title=Text(clean(table.task)),
            title_justify="left",
        )
        for place, name in enumerate(HEADER):
            drawn.add_column(
                name,
                justify="right" if place else "left",
                no_wrap=True,
                min_width=0 if place else 24,
            )
        for row in rows[:MOST_ROWS]:
            cells = (
                clean(row.feature, 60, keep="head"), str(row.steps), row.gain_words,
                row.interval_words, str(row.alone), str(row.invalid),
            )  # fmt: skip
            drawn.add_row(*(Text(cell) for cell in cells))
        if rows:
            draw(console, drawn)
        if len(rows) > MOST_ROWS:
            console.print(f"and {len(rows) - MOST_ROWS} more: --json")
        console.print(Text(table.words))
    for path, why in skipped.items():
        console.print(Text(clean(f"skipped: {path}: {why}", 400, keep="head")))
