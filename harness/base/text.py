"""Makes text from submissions, models, providers and other people's run folders safe to show.

Such text must go through this module before it is shown. Text that becomes part of a prompt goes
through ``harness.operators.text`` as well.
"""

import re
from typing import Literal

ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-Z\\^-~]")
"""Sequences that control a terminal and hold no text: colours, the cursor. If a sequence holds text
(a title, a link), that text stays, so that nobody can hide text in it."""

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000110bd\U000110cd\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0001\U000e0020-\U000e007f]"
)
"""Characters that cannot be seen: controls except newline and tab, line separators that
``str.splitlines`` knows and editors do not, marks that reverse the direction of reading (they make
code look different from what runs), characters of zero width, halves of surrogate pairs."""


def printable(text: str) -> str:
    """Return text with Unix line ends, without escape sequences and invisible characters."""
    return UNSEEN.sub("", ESCAPES.sub("", text.replace("\r\n", "\n")))


def visible(text: str) -> str:
    """Return text with Unix line ends in which U+FFFD replaces each invisible character."""
    return UNSEEN.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def clean(text: str, limit: int = 4000, *, keep: Literal["head", "tail"] = "tail") -> str:
    """Return printable text of at most ``limit`` characters, plus "…" where it was cut."""
    kept = printable(text)
    if len(kept) <= limit:
        return kept
    return kept[:limit] + "…" if keep == "head" else "…" + kept[-limit:]


def one_line(text: str, limit: int) -> str:
    """Return printable text as one line of at most ``limit`` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def quoted(text: str, indent: str) -> str:
    """Return a message with a bar before each line, so that no line looks like one of ours."""
    return "\n".join(f"{indent}| {line}" for line in text.split("\n"))


def encodable(text: str) -> str:
    """Return text that UTF-8 can encode: JSON may hold halves of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
