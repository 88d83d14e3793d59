"""Texts from run directories, which a stranger or a model may have written.

Files are read only where they lie inside the run and are regular: a link in a run that somebody
sent must not carry a file of this machine into a report that is passed on. Characters that only
act (terminal escapes, marks that turn the reading direction, halves of pairs) become a visible
sign, so that code reads as it runs.
"""

import re
from pathlib import Path

HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
MOST_BYTES = 4 << 20


def shown(text: str) -> str:
    """Return the text with every character that cannot be seen made visible."""
    return HIDDEN.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def text_of(run: Path, name: str) -> str | None:
    """Return a file of a run as text, its end where it is very large; None where there is none."""
    file = run / name
    try:
        if not file.is_file() or not file.resolve().is_relative_to(run.resolve()):
            return None
        with file.open("rb") as opened:
            size = file.stat().st_size
            if size > MOST_BYTES:
                opened.seek(size - MOST_BYTES)
            return shown(opened.read(MOST_BYTES).decode(errors="replace"))
    except OSError:
        return None


def cut(text: str, limit: int, *, keep_end: bool = False) -> str:
    """Return at most about ``limit`` characters, and say how many are missing."""
    gone = len(text) - limit
    if gone <= 0:
        return text
    note = f"[{gone:,} characters left out of this report]"
    return f"{note}\n{text[gone:]}" if keep_end else f"{text[:limit]}\n{note}"
