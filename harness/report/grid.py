"""A grid of short texts, and how it is written as Markdown, CSV or LaTeX.

board_text.py prints it on a terminal and as an HTML page. Names of agents and messages come from
run directories, which strangers may have made: every format escapes its special characters.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.cells import cell_len

from harness.base.errors import ConfigError
from harness.base.text import clean
from harness.base.validation import did_you_mean

PADDING = 3
"""Characters between two columns on a terminal."""

Format = Literal["table", "md", "csv", "latex", "html"]


@dataclass(frozen=True, slots=True)
class GridRow:
    """One row. A cell may hold several lines. ``dim``: no contender, but a value to compare with.

    ``best``: cells that hold the best number of their column.
    """

    cells: tuple[str, ...]
    dim: bool = False
    best: frozenset[int] = frozenset()

    def only(self, columns: Sequence[int]) -> "GridRow":
        """Return the row with only these cells, in this order."""
        best = frozenset(n for n, i in enumerate(columns) if i in self.best)
        return GridRow(tuple(self.cells[i] for i in columns), self.dim, best)


KEYS = {"": "mark", "95 %": "interval", "by seed": "seeds"}


def key(header: str) -> str:
    """Return the name by which a user asks for a column."""
    return KEYS.get(header, header.replace("\n", "-")).casefold()


def check_columns(asked: Sequence[str], known: Sequence[str]) -> None:
    """Raise ConfigError if a column of ``asked`` is not in ``known``."""
    for name in asked:
        if name.casefold() not in known:
            raise ConfigError(
                f"There is no column {name!r}.",
                remedy=did_you_mean(name.casefold(), list(dict.fromkeys(known))),
            )


def with_best_marked(lines: Sequence[GridRow], signs: Mapping[int, float]) -> list[GridRow]:
    """Return the lines with the best number of each of these columns marked.

    ``signs``: column to 1 if more is better, else -1. Numbers compare as printed, so ties are all
    marked. A column with a single number has no best.
    """
    found: list[set[int]] = [set() for _ in lines]
    for i, sign in signs.items():
        read = [_leading(line.cells[i]) for line in lines]
        values = {place: sign * value for place, value in enumerate(read) if value is not None}
        if len(values) > 1:
            most = max(values.values())
            for place, value in values.items():
                if value == most:
                    found[place].add(i)
    return [replace(line, best=frozenset(best)) for line, best in zip(lines, found, strict=True)]


def _leading(cell: str) -> float | None:
    try:
        return float(cell.split()[0])
    except (ValueError, IndexError):
        return None


@dataclass(frozen=True, slots=True)
class Grid:
    """A table with its title and the notes under it. ``numbers``: right-aligned columns."""

    title: str
    header: tuple[str, ...]
    numbers: frozenset[int]
    lines: tuple[GridRow, ...]
    notes: tuple[str, ...]

    @property
    def width(self) -> int:
        """How many characters a line of the grid takes on a terminal."""
        return sum(self._widths) - PADDING

    @property
    def _widths(self) -> list[int]:
        rows = [self.header, *(line.cells for line in self.lines)]
        return [
            max(cell_len(line) for row in rows for line in row[i].split("\n")) + PADDING
            for i in range(len(self.header))
        ]

    def without_empty_columns(self, fixed: int) -> "Grid":
        """Return the grid without columns from ``fixed`` on that hold only "", "–" or "0"."""
        cells = [line.cells for line in self.lines]
        kept = [
            i
            for i in range(len(self.header))
            if i < fixed or any(row[i] not in ("", "–", "0") for row in cells)
        ]
        return self._only(kept)

    def only(self, names: Sequence[str], fixed: int) -> "Grid":
        """Return the first ``fixed`` columns, then those of these names that the grid has."""
        place = {key(name): i for i, name in enumerate(self.header)}
        chosen = [place[n.casefold()] for n in names if n.casefold() in place]
        return self._only([*range(fixed), *(i for i in chosen if i >= fixed)])

    def split(self, fixed: int, width: int) -> list["Grid"]:
        """Return the grid as several, each at most ``width`` characters wide if its columns allow.

        Each repeats the columns before ``fixed``, except the last of them if there are several.
        """
        widths = self._widths
        again = list(range(max(1, fixed - 1) if fixed else 0))
        groups: list[list[int]] = [list(range(fixed))]
        for i in range(fixed, len(widths)):
            wide = sum(widths[j] for j in (*groups[-1], i)) - PADDING > width
            if wide and len(groups[-1]) > len(again):
                groups.append(list(again))
            groups[-1].append(i)
        if len(groups) == 1:
            return [self]
        parts = [self._only(group) for group in groups]
        return [
            replace(
                part,
                title=f"{part.title} · part {n} of {len(parts)}",
                notes=self.notes if n == len(parts) else (),
            )
            for n, part in enumerate(parts, start=1)
        ]

    def _only(self, columns: Sequence[int]) -> "Grid":
        named = sum(i < 2 for i in columns)
        lines = tuple(x.only(columns) for x in self.lines)
        lines = tuple(x for x in lines if not x.dim or any(x.cells[named:]))
        numbers = frozenset(n for n, i in enumerate(columns) if i in self.numbers)
        return replace(
            self, header=tuple(self.header[i] for i in columns), numbers=numbers, lines=lines
        )

    def transposed(self, fixed: int) -> "Grid":
        """Return the columns from ``fixed`` on as rows, one row a column; dim rows are left out."""
        kept = [line for line in self.lines if not line.dim]
        names = tuple("\n".join(filter(None, line.cells[1:fixed])) for line in kept)
        lines = tuple(
            GridRow(
                (self.header[i], *(line.cells[i] for line in kept)),
                best=frozenset(n for n, line in enumerate(kept, start=1) if i in line.best),
            )
            for i in range(fixed, len(self.header))
        )
        numbers = frozenset(range(1, len(kept) + 1))
        return Grid(self.title, ("", *names), numbers, lines, self.notes)


def markdown(grids: Sequence[Grid], words: Sequence[str]) -> str:
    """Return the grids and closing remarks as Markdown."""
    return "\n".join([*map(_markdown, grids), *(f"{_md(w)}\n" for w in words)])


def latex(grids: Sequence[Grid], words: Sequence[str]) -> str:
    """Return the grids and closing remarks as LaTeX."""
    tables = [_latex(grid, place) for place, grid in enumerate(grids, start=1)]
    return "\n".join([*tables, *(f"% {_tex(_flat(w))}\n" for w in words)])


def as_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return CSV. Text that a spreadsheet would read as a formula gets a leading apostrophe."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[_cell(v) for v in row] for row in rows])
    return file.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = _flat(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _flat(text: str) -> str:
    return " ".join(clean(text).split())


def _markdown(grid: Grid) -> str:
    rule = ["---:" if i in grid.numbers else "---" for i in range(len(grid.header))]
    rows = [grid.header, rule, *(line.cells for line in grid.lines)]
    table = [f"| {' | '.join(_md(cell) for cell in row)} |" for row in rows]
    notes = [f"- {_md(note)}" for note in grid.notes]
    return "\n".join([f"### {_md(grid.title)}", "", *table, "", *notes, ""])


def _md(text: str) -> str:
    flat = _flat(text)
    for mark in "\\|`*_[<":
        flat = flat.replace(mark, f"\\{mark}")
    return flat


TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # after a row's \\ LaTeX would read them as arguments
    "±": r"$\pm$", "≈": r"$\approx$", "≥": r"$\geq$", "–": "--", "×": r"$\times$",
    "†": r"$\dagger$", "·": r"$\cdot$", "…": r"\dots{}", "’": "'", "−": "$-$", "→": r"$\to$",
}  # fmt: skip
PLAIN = re.compile("[ -~À-ÖØ-öø-ÿ]")


def _tex(text: str) -> str:
    """Return text that every LaTeX can set; a character its fonts may lack becomes U+number."""
    return "".join(
        TEX.get(c) or (c if PLAIN.match(c) else rf"\texttt{{U+{ord(c):04X}}}") for c in text
    )


def _latex(grid: Grid, place: int) -> str:
    columns = "".join("r" if i in grid.numbers else "l" for i in range(len(grid.header)))
    rows = [" & ".join(_tex_cells(line)) + r" \\" for line in grid.lines]
    head = " & ".join(_tex(_flat(c)) for c in grid.header) + r" \\"
    notes = [rf"% {_tex(_flat(note))}" for note in grid.notes]
    bold = " Best in bold." if any(line.best for line in grid.lines) else ""
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}; with pdflatex \usepackage[T1]{fontenc}, too",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(_flat(grid.title))}.{bold}}}",
            rf"\label{{tab:leaderboard-{place}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            *notes,
            "",
        ]
    )


def _tex_cells(line: GridRow) -> Iterator[str]:
    for i, cell in enumerate(line.cells):
        number, space, rest = _flat(cell).partition(" ")
        yield (rf"\textbf{{{_tex(number)}}}" if i in line.best else _tex(number)) + _tex(
            space + rest
        )
