"""Texts from run directories, which a stranger or a model may have written.

Files are read only where they lie inside the run and are regular: a link in a run that somebody
sent must not carry a file of this machine into a report that is passed on. Characters that only
act (terminal escapes, marks that turn the reading direction, halves of pairs) become a visible
sign, so that code reads as it runs.
"""

from pathlib import Path

from harness.base.text import visible

MOST_BYTES = 4 << 20


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
            return visible(opened.read(MOST_BYTES).decode(errors="replace"))
    except OSError:
        return None


def cut(text: str, limit: int, *, keep_end: bool = False) -> str:
    """Return at most about ``limit`` characters, and say how many are missing."""
    gone = len(text) - limit
    if gone <= 0:
        return text
    note = f"[{gone:,} characters left out of this report]"
    return f"{note}\n{text[gone:]}" if keep_end else f"{text[:limit]}\n{note}"
