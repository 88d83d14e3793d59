"""Makes the pages and pictures that the code itself decides: run ``make docs`` and commit them.

``python docs/generate.py --check`` writes nothing, and exits 1 if one of them is not up to date.
"""

import ast
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import wrap
from xml.sax.saxutils import escape

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from harness.base import registry
from harness.cli import app

DOCS = Path(__file__).parent
ROOT = DOCS.parent

COMMANDS = """\
# Commands

<!-- `make docs` writes this page from the help of the commands. -->

`harness COMMAND --help` prints the same. {exit_codes}

| command | |
|---|---|
{table}

{pages}
"""

WIDTH, MARGIN, GAP, PAD, LINE = 960, 10, 8, 10, 18
LETTER = 7.0
"""Pixels that a letter takes at most on average: how long a line of a room can be."""

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" role="img">
<!-- `make docs` draws this picture from pyproject.toml and the docstrings of the packages. -->
<style>
  text {{ font: 13px system-ui, sans-serif; fill: #24292f }}
  .name {{ font: 600 13px ui-monospace, monospace }}
  rect {{ stroke: #8c959f }}
  .ours {{ fill: #ddf4ff }}
  .beside {{ fill: #fff8c5 }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e6edf3 }}
    .ours {{ fill: #0c2d4a }}
    .beside {{ fill: #3a2f08 }}
  }}
</style>
{rooms}
</svg>
"""


def commands() -> str:
    """Return the reference of all commands, from the help that they print."""
    # Without what packages on this machine add, the page is the same on every machine.
    registry.installed = lambda group: ()
    root = typer.Context(get_command(app.app), **(app.app.info.context_settings or {}))
    rows, pages = [], []
    for name, says in app.COMMANDS.items():
        command = app.load(name)
        for part in (command, *getattr(command, "commands", {}).values()):
            part.short_help = (part.help or "").split("\n\n")[0]  # or the list would cut it short
        context = typer.Context(command, parent=root, info_name=name)
        pages.append(
            get_docs_for_click(
                obj=command, ctx=context, indent=1, name=name, call_prefix="harness"
            ).strip()
        )
        rows.append(f"| [`{name}`](#harness-{name}) | {says} |")
    return COMMANDS.format(
        exit_codes=app.EXIT_CODES, table="\n".join(rows), pages="\n\n".join(pages)
    )


def floors() -> str:
    """Return a picture of the floors that import-linter holds; each room says what it is for."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(one["layers"] for one in contracts["contracts"] if one["type"] == "layers")
    parts: list[str] = []
    y = MARGIN
    for layer in layers:
        rooms = [name.strip() for name in layer.split("|")]
        width = (WIDTH - 2 * MARGIN - GAP * (len(rooms) - 1)) / len(rooms)
        told = [wrap(purpose(name), int((width - 2 * PAD) / LETTER)) for name in rooms]
        height = 2 * PAD + LINE * (1 + max(map(len, told)))
        for place, (name, lines) in enumerate(zip(rooms, told, strict=True)):
            x = MARGIN + place * (width + GAP)
            kind = "ours" if name.startswith("harness.") else "beside"
            parts += room(name, lines, kind, x, y, width, height)
        y += height + GAP
    return SVG.format(width=WIDTH, height=y - GAP + MARGIN, rooms="\n".join(parts))


def room(
    name: str, lines: list[str], kind: str, x: float, y: float, width: float, height: float
) -> Iterator[str]:
    """Yield the elements of one room: a box, its name, and lines of text."""
    yield f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height}" rx="6"/>'
    for row, line in enumerate([name, *lines]):
        style = "" if row else ' class="name"'
        at = f'x="{x + PAD:g}" y="{y + PAD + LINE * (row + 0.75):g}"'
        yield f"<text{style} {at}>{escape(line)}</text>"


def purpose(package: str) -> str:
    """Return the first paragraph of a package's docstring."""
    source = (ROOT / package.replace(".", "/") / "__init__.py").read_text()
    return (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].replace("\n", " ")


MADE: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands,
    "concepts/floors.svg": floors,
}
"""File below docs/ -> what makes its text."""


def main(arguments: list[str]) -> int:
    """Write the files, or only compare them; return the exit code."""
    texts = {DOCS / name: make() for name, make in MADE.items()}
    old = [file for file, text in texts.items() if not file.exists() or file.read_text() != text]
    if "--check" in arguments:
        for file in old:
            print(f"{file.relative_to(ROOT)} is not up to date: make docs", file=sys.stderr)
        return 1 if old else 0
    for file in old:
        file.write_text(texts[file])
        print(f"{file.relative_to(ROOT)} was written")
    print(f"{len(texts)} files are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
