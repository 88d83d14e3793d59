"""Reads texts from run directories, which an untrusted person or a model may have written.

Only regular files inside the run are read: a link in a run from somebody else must not copy a
file of this machine into a report that is then shared. Control characters (terminal escapes, marks
that change the reading direction, lone surrogates) become a visible sign, so that code reads as it
runs. Nothing is escaped for HTML here; the templates do that.
"""

import os
from pathlib import Path

from harness.base.files import open_plain
from harness.base.text import visible

MOST_BYTES = 4 << 20


def text_of(run: Path, name: str) -> str | None:
    """Return a run's file as text, only its last 4 MiB if larger; None if it cannot be read."""
    try:
        file = (run / name).resolve()
        if not file.is_relative_to(run.resolve()):
            return None
        with open_plain(file) as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - MOST_BYTES))
            return visible(opened.read(MOST_BYTES).decode(errors="replace"))
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return None


def cut(text: str, limit: int, *, keep_end: bool = False) -> str:
    """Return a text's first (or last) ``limit`` characters, with a note if any are left out."""
    gone = len(text) - limit
    if gone <= 0:
        return text
    note = f"[{gone:,} characters left out of this report]"
    return f"{note}\n{text[gone:]}" if keep_end else f"{text[:limit]}\n{note}"
