"""One grid of short texts, printed as a terminal table, Markdown, CSV, LaTeX or HTML.

Names of agents and messages come from run directories, which may be a stranger's: every format
escapes what it would otherwise act upon.
"""

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scorers.output import clean

PADDING = 3
"""Characters between two columns on a terminal."""

Style = Literal["plain", "dim"]
Format = Literal["table", "md", "csv", "latex", "html"]


@dataclass(frozen=True, slots=True)
class Line:
    """One row. A cell may hold several lines. ``dim``: not a contender, a value to compare with."""

    cells: tuple[str, ...]
    style: Style = "plain"


@dataclass(frozen=True, slots=True)
class Grid:
    """A table with its title and the notes under it. ``numbers``: columns set to the right."""

    title: str
    header: tuple[str, ...]
    numbers: frozenset[int]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many characters a line of it takes on a terminal."""
        return sum(self._widths) - PADDING

    @property
    def _widths(self) -> list[int]:
        rows = [self.header, *(line.cells for line in self.lines)]
        return [
            max(len(line) for row in rows for line in row[i].split("\n")) + PADDING
            for i in range(len(self.header))
        ]

    def slim(self, fixed: int) -> "Grid":
        """Return it without the columns from ``fixed`` on that say nothing about anybody."""
        cells = [line.cells for line in self.lines]
        kept = [
            i
            for i in range(len(self.header))
            if i < fixed or any(row[i] not in ("", "–", "0") for row in cells)
        ]
        return self._only(kept)

    def split(self, fixed: int, width: int) -> list["Grid"]:
        """Return it as tables of at most so many characters.

        Each repeats the columns before ``fixed``, but the last of these only the first table has.
        """
        widths = self._widths
        again = list(range(max(1, fixed - 1)))
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
        lines = tuple(Line(tuple(x.cells[i] for i in columns), x.style) for x in self.lines)
        lines = tuple(x for x in lines if x.style == "plain" or any(x.cells[2:]))
        numbers = frozenset(n for n, i in enumerate(columns) if i in self.numbers)
        return replace(
            self, header=tuple(self.header[i] for i in columns), numbers=numbers, lines=lines
        )

    def transposed(self, fixed: int) -> "Grid":
        """Return the columns from ``fixed`` on as rows, one column a row; dim rows are left out."""
        kept = [line for line in self.lines if line.style == "plain"]
        names = tuple("\n".join(filter(None, line.cells[1:fixed])) for line in kept)
        lines = tuple(
            Line((self.header[i], *(line.cells[i] for line in kept)))
            for i in range(fixed, len(self.header))
        )
        numbers = frozenset(range(1, len(kept) + 1))
        return Grid(self.title, ("", *names), numbers, lines, self.notes)


def written(grids: Sequence[Grid], words: Sequence[str], form: Format) -> str:
    """Return the grids and closing words as text of a format other than the terminal's."""
    match form:
        case "md":
            return "\n".join([*map(_markdown, grids), *(f"{_md(w)}\n" for w in words)])
        case "latex":
            return "\n".join([*map(_latex, grids), *(f"% {_tex(_flat(w))}\n" for w in words)])
        case "html":
            closing = "".join(f"<p>{html.escape(clean(w))}</p>\n" for w in words)
            return "".join(map(_html, grids)) + closing
        case _:
            raise ValueError(form)


def as_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return CSV. A text that a spreadsheet would take for a formula is quoted by an apostrophe."""
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
    "±": r"$\pm$", "≈": r"$\approx$", "≥": r"$\geq$", "–": "--", "×": r"$\times$",
    "†": r"$\dagger$", "·": r"$\cdot$", "…": r"\dots{}",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(TEX.get(c, c) for c in text)


def _latex(grid: Grid) -> str:
    columns = "".join("r" if i in grid.numbers else "l" for i in range(len(grid.header)))
    rows = [" & ".join(_tex(_flat(c)) for c in line.cells) + r" \\" for line in grid.lines]
    head = " & ".join(_tex(_flat(c)) for c in grid.header) + r" \\"
    notes = [rf"% {_tex(_flat(note))}" for note in grid.notes]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            rf"\caption{{{_tex(_flat(grid.title))}}}",
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


def _html(grid: Grid) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        aligned = [' align="right"' if i in grid.numbers else "" for i in range(len(row))]
        return "".join(
            f"<{tag}{align}>{_lines(cell)}</{tag}>"
            for align, cell in zip(aligned, row, strict=True)
        )

    body = "".join(f"<tr>{cells(line.cells, 'td')}</tr>\n" for line in grid.lines)
    notes = "".join(f"<li>{html.escape(clean(note))}</li>\n" for note in grid.notes)
    return (
        f"<table>\n<caption>{html.escape(clean(grid.title))}</caption>\n"
        f"<thead><tr>{cells(grid.header, 'th')}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"
        f"<ul>\n{notes}</ul>\n"
    )


def _lines(cell: str) -> str:
    return "<br>".join(html.escape(clean(line)) for line in cell.split("\n"))
