"""Parses edits, which are search/replace blocks, and applies them strictly.

    model.py
    <<<<<<< SEARCH
    lines as they stand in the file, found exactly once
    =======
    lines that take their place
    >>>>>>> REPLACE

Lines are compared whole and exactly. Every search is looked up in the file as it was shown, not
as other blocks changed it; all blocks apply, or none. If the text itself holds such a mark, all
three marks of a block may be longer, by the same number of characters.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.operators.blocks import named_in
from harness.operators.parsing import ParsedFiles
from harness.operators.text import one_line

MAX_EDITS = 200

_BEGIN = re.compile(r"^[ \t]*(<{7,}) ?SEARCH[ \t]*(\S*)[ \t]*$")


@dataclass(frozen=True, slots=True)
class Edit:
    """One block. ``name`` is as the model wrote it, or None."""

    name: str | None
    search: tuple[str, ...]
    replace: tuple[str, ...]


def has_edits(text: str) -> bool:
    """Return whether an answer tries to give edits."""
    return any(_BEGIN.match(line) for line in text.split("\n"))


def find_edits(text: str, wanted: Sequence[str]) -> tuple[list[Edit], list[str]]:
    """Return the valid blocks of an answer, and what is wrong with the invalid ones."""
    edits: list[Edit] = []
    problems: list[str] = []
    lines = text.split("\n")
    at = 0
    name: str | None = None
    while at < len(lines):
        begin = _BEGIN.match(lines[at])
        if not begin:
            at += 1
            continue
        number, width = len(edits) + len(problems) + 1, len(begin[1])
        if number > MAX_EDITS:
            problems.append(f"There are more than {MAX_EDITS} blocks.")
            break
        # A name holds for the blocks after it too, until another is given.
        name = begin[2] or named_in(lines[max(0, at - 3) : at], wanted) or name
        divider, closing = "=" * width, ">" * width + " REPLACE"
        middle = _find(lines, at + 1, divider, width)
        end = None if middle is None else _find(lines, middle + 1, closing, width)
        if middle is None or end is None:
            missing = divider if middle is None else closing
            problems.append(f"Block {number} has no line {missing}.")
            at += 1
            continue
        edits.append(Edit(name, tuple(lines[at + 1 : middle]), tuple(lines[middle + 1 : end])))
        at = end + 1
    return edits, problems


def apply_edits(files: Mapping[str, str], edits: Sequence[Edit], *, max_bytes: int) -> ParsedFiles:
    """Return the files with all edits made, or the reason for each edit that cannot be made."""
    problems: list[str] = []
    spans: dict[str, list[tuple[int, int, tuple[str, ...]]]] = {name: [] for name in files}
    lines = {name: text.split("\n") for name, text in files.items()}
    for number, edit in enumerate(edits, start=1):
        name = _resolve(edit.name, files)
        if name is None:
            known = ", ".join(files)
            named = f"names {one_line(edit.name, 80)}" if edit.name else "names no file"
            problems.append(f"Block {number} {named}; the files are {known}.")
            continue
        found = _places(files[name], edit.search)
        if len(found) != 1:
            problems.append(f"Block {number}: {_why(edit, name, len(found))}")
            continue
        begin, end = found[0], found[0] + len(edit.search)
        if any(begin < e and b < end for b, e, _ in spans[name]):
            problems.append(f"Block {number} changes lines of {name} that another block changes.")
            continue
        spans[name].append((begin, end, edit.replace))
    if problems:
        return ParsedFiles({}, tuple(problems))
    for name, changes in spans.items():
        for begin, end, new in sorted(changes, reverse=True):
            lines[name][begin:end] = new
    made = {name: "\n".join(of) for name, of in lines.items()}
    size = sum(len(text.encode()) for text in made.values())
    if size > max_bytes:
        return ParsedFiles(
            {}, (f"The files would have {size:,} bytes; they may have {max_bytes:,}.",)
        )
    if made == dict(files):
        return ParsedFiles({}, ("The edits change nothing.",))
    return ParsedFiles(made)


def _find(lines: list[str], start: int, mark: str, width: int) -> int | None:
    """Return the number of the line that is ``mark``, if it comes before the next block."""
    for number in range(start, len(lines)):
        line = lines[number].strip()
        if line == mark or line == mark.replace(" ", ""):
            return number
        begin = _BEGIN.match(lines[number])
        if begin and len(begin[1]) == width:
            return None
    return None


def _resolve(name: str | None, files: Mapping[str, str]) -> str | None:
    if name is None:
        return next(iter(files)) if len(files) == 1 else None
    name = name.removeprefix("./")
    return name if name in files else None


def _places(text: str, search: tuple[str, ...]) -> list[int]:
    """Return the lines of ``text`` where the search begins; it stops at two, which are too many."""
    if not any(line.strip() for line in search):
        return []
    # One search in one string: line by line, hostile repetition would make it quadratic.
    within, sought = f"\n{text}\n", "\n" + "\n".join(search) + "\n"
    found: list[int] = []
    at = within.find(sought)
    while at >= 0 and len(found) < 2:
        found.append(within.count("\n", 0, at))
        at = within.find(sought, at + 1)
    return found


def _why(edit: Edit, name: str, found: int) -> str:
    if not any(line.strip() for line in edit.search):
        return "its search is empty."
    first = one_line(next(line for line in edit.search if line.strip()), 80)
    if found:
        return f"its search stands in {name} more than once; it begins with: {first}"
    return f"its search does not stand in {name}, line for line; it begins with: {first}"
