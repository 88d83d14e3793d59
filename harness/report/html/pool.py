"""Stores the texts of a whole search compactly: each line once, then all deflated once.

A node's file repeats its parent's file except for a few lines, a prompt repeats the parent's file,
and a response repeats the node's file. So a text is stored as ranges of lines in a common pool.
"""

import base64
import json
import zlib
from typing import Any

Ranges = list[int]
"""Start, count, start, count …: ranges of the pool's lines."""


class Pool:
    """The lines of all texts. The page's script joins the ranges that ``add`` returns."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._one: dict[str, int] = {}
        self._two: dict[tuple[str, str], int] = {}

    def add(self, text: str) -> Ranges:
        """Store a text; return its ranges."""
        wanted = text.split("\n")
        ranges: Ranges = []
        at, count = 0, len(wanted)
        while at < count:
            start = self._find(wanted, at)
            length = 1
            if start is None:
                start = self._append(wanted[at])
            else:
                while (
                    at + length < count
                    and start + length < len(self.lines)
                    and self.lines[start + length] == wanted[at + length]
                ):
                    length += 1
            if ranges and ranges[-2] + ranges[-1] == start:
                ranges[-1] += length
            else:
                ranges += [start, length]
            at += length
        return ranges

    def _find(self, wanted: list[str], at: int) -> int | None:
        """Return where the pool has this line, if possible followed by the next one; else None."""
        if at + 1 < len(wanted):
            both = self._two.get((wanted[at], wanted[at + 1]))
            if both is not None:
                return both
        return self._one.get(wanted[at])

    def _append(self, line: str) -> int:
        here = len(self.lines)
        if here:
            self._two[self.lines[-1], line] = here - 1
        self.lines.append(line)
        self._one[line] = here
        return here


def packed(value: dict[str, Any]) -> str:
    """Return JSON, deflated, in base64: no character of it is special in HTML."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
