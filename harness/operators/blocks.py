"""Finds fenced blocks in a model's answer and their file names; parsing.py chooses among them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

MAX_BLOCKS = 256

FenceRule = Literal["strict", "nested", "flat", "widest"]
"""What a fence inside a block means. strict: as in CommonMark. nested: a fence with a word begins a
block inside the block. flat: such a fence begins the next block, because the model forgot to close
the last one. widest: the first block ends at the last closing fence of the text."""

FENCE_RULES: tuple[FenceRule, ...] = ("strict", "nested", "flat", "widest")

_OPEN = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")
_PATH = re.compile(r"^[\w./\\~-]*[\w~-]\.[A-Za-z]\w{0,7}$|^[\w.~-]*[/\\][\w./\\~-]+$")
_ALONE = re.compile(r"^[\s#*`_>-]*(?:file(?: ?name)?|path)?[\s:*`]*([^\s`*:]+)[\s`*:]*$", re.I)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. ``name`` is as the model wrote it: not yet trusted."""

    text: str
    language: str
    name: str | None
    closed: bool


def find_blocks(text: str, wanted: Sequence[str], reading: FenceRule) -> Iterator[Block]:
    """Yield the fenced blocks of a text, in order, at most ``MAX_BLOCKS``."""
    lines = text.split("\n")
    at = found = 0
    while at < len(lines) and found < MAX_BLOCKS:
        match = _OPEN.match(lines[at])
        if not match:
            at += 1
            continue
        end, closed = _end(lines, at + 1, match, reading)
        body = [line.removeprefix(match["indent"]) for line in lines[at + 1 : end]]
        content = "".join(f"{line}\n" for line in body)
        before = [line for line in lines[max(0, at - 2) : at] if line.strip()]
        language, name = _read_info(match["info"], wanted)
        name = name or _name_before(before[-1] if before else "", wanted)
        name = name or _name_inside(body[0] if body else "", wanted)
        yield Block(content, language, name, closed)
        found += 1
        at = end + 1 if closed else end


def named_in(lines: list[str], wanted: Sequence[str]) -> str | None:
    """Return the file named before an edit, by the words after a fence or by a line of its own."""
    for line in reversed([line for line in lines if line.strip()]):
        match = _OPEN.match(line)
        name = _read_info(match["info"], wanted)[1] if match else _name_before(line, wanted)
        if name:
            return name
    return None


def outside(lines: Sequence[str]) -> Iterator[bool]:
    """Yield for each line whether it stands outside of all blocks."""
    opened: re.Match[str] | None = None
    for line in lines:
        if opened is not None:
            opened = None if _closes(line, opened) else opened
            yield False
        else:
            opened = _OPEN.match(line)
            yield opened is None


def ends_in_block(text: str) -> bool:
    """Return whether a text breaks off inside a block."""
    *_, last = outside([*text.split("\n"), ""])
    return not last


def is_name(line: str) -> bool:
    """Return whether a line is nothing but a file's name."""
    return len(line) <= 200 and _ALONE.match(line) is not None and " " not in line.strip()


def _end(
    lines: list[str], start: int, opened: re.Match[str], reading: FenceRule
) -> tuple[int, bool]:
    """Return the line number where a block ends, and whether that line is its closing fence."""
    depth = 0
    if reading == "widest":
        for number in range(len(lines) - 1, start - 1, -1):
            if _closes(lines[number], opened):
                return number, True
    for number in range(start, len(lines)):
        line = lines[number]
        if _closes(line, opened):
            if depth == 0:
                return number, True
            depth -= 1
        elif reading != "strict" and (inner := _OPEN.match(line)):
            longer = inner["ticks"].startswith(opened["ticks"]) and inner["info"].strip()
            if longer and reading == "flat":
                return number, False
            depth += bool(longer)
    return len(lines), False


def _closes(line: str, opened: re.Match[str]) -> bool:
    # As in CommonMark: a fence that is indented further belongs to the text.
    fence, indent = line.strip(), len(line) - len(line.lstrip())
    ticks = opened["ticks"]
    return (
        fence.startswith(ticks)
        and not fence.strip(ticks[0])
        and indent <= len(opened["indent"]) + 3
    )


def _read_info(info: str, wanted: Sequence[str]) -> tuple[str, str | None]:
    """Return language and file name from the words after a fence, such as ``python model.py``."""
    words = [word for word in re.split(r"[\s\"'=:{},()\[\]]+", info) if word]
    names = [word for word in words if word in wanted or _PATH.match(word)]
    language = words[0].lstrip(".").lower() if words and words[0] not in names else ""
    return language, names[0] if names else None


def _name_before(line: str, wanted: Sequence[str]) -> str | None:
    """Return the name that the line before a block gives, if it gives one."""
    if len(line) > 200:
        return None
    alone = _ALONE.match(line)
    if alone and _PATH.match(alone[1]):
        return alone[1]
    mentioned = [name for name in wanted if name in line]
    if len(mentioned) == 1 and line.rstrip().endswith((":", "`", "*", mentioned[0])):
        return mentioned[0]
    return None


def _name_inside(line: str, wanted: Sequence[str]) -> str | None:
    """Return the name that a comment in a block's first line gives."""
    comment = re.match(r"^(?:#|//) *(?:file(?:name)?: *)?([\w./-]+) *$", line)
    return comment[1] if comment and comment[1] in wanted else None
