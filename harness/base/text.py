"""Text that somebody else wrote, made fit to be shown: the one place that knows how.

Whatever a submission, a model, a provider or a stranger's run folder says is noise until it went
through here. What becomes part of a prompt goes through ``harness.operators.text`` as well.
"""

import re
from typing import Literal

ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-Z\\^-~]")
"""What makes a terminal do something, without a text of its own: colours, the cursor. Of those with
one (a title, a link) the text stays, so that nobody can hide any."""

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000110bd\U000110cd\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0001\U000e0020-\U000e007f]"
)
"""Characters that only act, or are not there to see: controls but for newline and tab, separators
that ``str.splitlines`` knows and editors do not, marks that reverse the direction of reading (code
that reads otherwise than it runs), characters without a width, halves of pairs."""


def printable(text: str) -> str:
    """Return text with Unix line ends, without escape sequences and without what is unseen."""
    return UNSEEN.sub("", ESCAPES.sub("", text.replace("\r\n", "\n")))


def visible(text: str) -> str:
    """Return text with Unix line ends in which a sign stands for each character that is unseen."""
    return UNSEEN.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def clean(text: str, limit: int = 4000, *, keep: Literal["head", "tail"] = "tail") -> str:
    """Return printable text of at most ``limit`` characters, and a sign where it was cut."""
    kept = printable(text)
    if len(kept) <= limit:
        return kept
    return kept[:limit] + "…" if keep == "head" else "…" + kept[-limit:]


def one_line(text: str, limit: int) -> str:
    """Return printable text as one line of at most ``limit`` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def quoted(text: str, indent: str) -> str:
    """Return a message with a bar before each line: none may pass for a line of ours."""
    return "\n".join(f"{indent}| {line}" for line in text.split("\n"))


def encodable(text: str) -> str:
    """Return text that UTF-8 can hold: JSON can bring halves of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
