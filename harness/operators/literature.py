"""Literature: a folder of Markdown notes from which prompts draw within a limit of tokens.

All titles stand in every prompt. Whole notes are chosen without a model, so that a replay chooses
the same ones: in turns the note that shares most words with the parents' notes (rare words count
more), and a note drawn by the node's seed, so that a run does not keep reading the same few.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness.base.digests import digest
from harness.base.errors import ConfigError
from harness.base.files import read_text
from harness.base.seeds import stream
from harness.base.text import printable
from harness.operators.text import fence, one_line, tokens, trim_middle
from tasks.definition import TASKS_DIR
from tasks.spec import Task

MAX_NOTES = 1000
MAX_BYTES = 1 << 20
"""Largest file of one note."""


@dataclass(frozen=True, slots=True)
class Note:
    """One file: ``title`` is its first heading, else its name."""

    name: str
    title: str
    text: str


def shipped(task: Task) -> Path | None:
    """Return the folder of notes that comes with a task, or with its family; None without one."""
    for folder in (task.folder, task.folder.parent):
        if (folder / "literature").is_dir() and folder != TASKS_DIR:
            return folder / "literature"
    return None


def load(folder: Path | None) -> tuple[Note, ...]:
    """Return the notes of a folder, in order of their names. Raises ConfigError."""
    if folder is None:
        return ()
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}.", remedy="--literature DIR of .md files")
    files = sorted(folder.glob("*.md"))
    if not files or len(files) > MAX_NOTES:
        raise ConfigError(
            f"{folder} holds {len(files)} Markdown notes; 1 to {MAX_NOTES:,} can be used.",
            remedy="a folder with one .md file a paper",
        )
    return tuple(_read(file) for file in files)


def literature_hash(folder: Path | None) -> str:
    """Return a hash of all notes of a folder, or "" without one. Raises ConfigError."""
    notes = load(folder)
    if not notes:
        return ""
    parts = (part for note in notes for part in (note.name, note.text))
    return digest("\0".join(parts))


def titles(notes: tuple[Note, ...], limit: int) -> str:
    """Return the list of all titles, shortened in its middle."""
    return trim_middle("\n".join(f"- {note.title} ({note.name})" for note in notes), limit)


def choose(notes: tuple[Note, ...], about: str, seed: int, limit: int) -> str:
    """Return whole, fenced notes within ``limit``: in turns by words of ``about`` and by seed."""
    shuffled = list(notes)
    stream(seed, "literature").shuffle(shuffled)
    words = _words(about)
    shared = {note.name: sorted(_words(note.text) & words) for note in notes}
    held = Counter(word for found in shared.values() for word in found)
    match = {name: sum(1 / held[word] for word in found) for name, found in shared.items()}
    # Each word counts 1 / (notes that hold it): a word in most notes tells little about any.
    matching = sorted((n for n in shuffled if match[n.name]), key=lambda n: -match[n.name])
    order: dict[str, Note] = {}
    for place, by_seed in enumerate(shuffled):
        for note in (*matching[place : place + 1], by_seed):
            order.setdefault(note.name, note)
    kept: list[str] = []
    for note in order.values():
        shown = fence(note.text, "markdown")
        if tokens(shown) + 1 <= limit:
            limit -= tokens(shown) + 1
            kept.append(shown)
    return "\n\n".join(kept)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z][a-z0-9²-]{2,}", text.lower()))


def _read(file: Path) -> Note:
    try:
        # Some installers make links of a task's own notes.
        text = read_text(file, most=MAX_BYTES, follow=TASKS_DIR in file.parents)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be read.", cause=str(error), remedy="a UTF-8 text file"
        ) from error
    text = printable(text).strip()
    if not text:
        raise ConfigError(
            f"{file} is empty.",
            remedy="a short note in Markdown, or remove the file",
        )
    heading = re.search(r"^#+[ \t]+(\S.*)$", text, re.M)
    return Note(file.name, one_line(heading[1] if heading else file.stem, 120), text)
