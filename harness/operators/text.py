"""Prepares text for a prompt: makes it harmless, measures, shortens and fences it."""

import re

from harness.base import text as base
from harness.base.text import ESCAPES, printable

BYTES_A_TOKEN = 3
"""For estimates. English has about 4 bytes a token; code and numbers, of which our prompts mostly
consist, have 2.5 to 3.5, so this errs on the long side."""

LONGEST_RUN = 32
"""Longer runs of backticks are shortened to this; a hostile run could make fences huge."""


def from_terminal(text: str) -> str:
    """Return a program's output as a person would have seen it on a terminal.

    Escape sequences are removed, an overwritten line (progress bars) keeps its last version, and
    ``<|`` becomes ``< |``: many local servers read ``<|…|>`` anywhere as the end of a message.
    """
    text = ESCAPES.sub("", text)
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return printable("\n".join(lines)).replace("<|", "< |")


def one_line(text: str, limit: int) -> str:
    """Return text as one line of at most ``limit`` characters, cleaned by ``from_terminal``."""
    return base.one_line(from_terminal(text), limit)


def tokens(text: str) -> int:
    """Return an estimate of how many tokens a text has."""
    return -(-len(text.encode()) // BYTES_A_TOKEN)


def trim_middle(text: str, limit: int) -> str:
    """Return text of at most ``limit`` estimated tokens; a line says how many bytes are left out.

    Empty if the limit leaves no room for anything but that line.
    """
    raw = text.encode()
    room = limit * BYTES_A_TOKEN
    if len(raw) <= room:
        return text
    marker = "\n[… {:,} bytes left out …]\n"
    keep = room - len(marker.format(len(raw)).encode())
    if keep < 2 * BYTES_A_TOKEN:
        return ""
    head = _whole_lines(raw[: keep - keep // 2], last=True)
    tail = _whole_lines(raw[len(raw) - keep // 2 :], last=False)
    gone = len(raw) - len(head) - len(tail)
    return head.decode(errors="ignore") + marker.format(gone) + tail.decode(errors="ignore")


def _whole_lines(piece: bytes, *, last: bool) -> bytes:
    """Return a piece without the line that was cut, unless that would lose over half of it."""
    at = piece.rfind(b"\n") if last else piece.find(b"\n")
    kept = piece[:at] if last else piece[at + 1 :]
    return kept if at >= 0 and len(kept) * 2 >= len(piece) else piece


def fence(text: str, info: str = "") -> str:
    """Return text as a fenced block that nothing in the text can close."""
    text = re.sub(rf"`{{{LONGEST_RUN},}}", "`" * LONGEST_RUN, text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    end = "" if not text or text.endswith("\n") else "\n"
    return f"{ticks}{info}\n{text}{end}{ticks}"
