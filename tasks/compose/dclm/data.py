"""DCLM-baseline as language modelling, from files of the user's: ``*.jsonl.zst`` with a ``text``.

The published form (arXiv 2406.11794): each line is a JSON object, one document. From there on the
rows are made as those of ``compose/text``, with a tokenizer of their own.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from harness.base.errors import ConfigError
from tasks.autoresearch.sources import fingerprint
from tasks.compose.language import folder_given
from tasks.compose.text.data import CorpusParameters, Pages, prepare_text
from tasks.definition import Progress, Value
from tasks.lra.sources import identity
from tasks.prepared import check

if TYPE_CHECKING:
    import zstandard

TASK, PART = "compose/dclm", "dclm"
GENERATOR = "compose-dclm-1"
"""Raise the number whenever the same parameters and files would give other rows."""
SUFFIX = ".jsonl.zst"
WANTED = f"with DCLM's files, *{SUFFIX}"
MOST_BYTES = 64 << 20
"""A longer line is no document."""
PIECE = 1 << 14
"""Bytes unpacked at once: the few that a bomb of zeros holds become no more than memory has."""


def prepare(profile: str, data: Mapping[str, Value], root: Path, progress: Progress) -> Path:
    """Return the data folder under ``root``; make it first if it is missing or incomplete.

    Raises ConfigError if ``data``, a file or the hidden key is wrong, there is too little text, or
    ``root`` cannot be written.
    """
    p = check(CorpusParameters, TASK, profile, data)
    files = files_in(folder_given(TASK, p.source, WANTED))

    def read() -> Pages:
        return pages(files, p.max_characters, progress)

    return prepare_text(TASK, PART, GENERATOR, profile, p, identity(files), read, root, progress)


def files_in(folder: Path) -> list[Path]:
    """Return the files of documents in a folder and below, by name. Raises ConfigError."""
    found = sorted(path for path in folder.rglob(f"*{SUFFIX}") if path.is_file())
    if not found:
        names = sorted(path.name for path in folder.iterdir())[:8]
        raise ConfigError(
            f"{folder} holds no DCLM.",
            cause=f"no file below it ends in {SUFFIX}; it has {', '.join(names) or 'nothing'}",
            remedy=f"--data DIR, a folder {WANTED}",
        )
    return found


def pages(files: list[Path], max_characters: int, progress: Progress) -> Pages:
    """Return the documents of the files, each once, in the order of their hashes.

    After ``max_characters`` (0: never) no more is read. Raises ConfigError naming a bad file.
    """
    found: dict[bytes, str] = {}
    total = 0
    for done, file in enumerate(files):
        progress("reading DCLM, files", done, len(files))
        for text in documents(file):
            found.setdefault(fingerprint(text), text)
            total += len(text)
            if max_characters and total >= max_characters:
                break
        if max_characters and total >= max_characters:
            break
    progress("reading DCLM, files", len(files), len(files))
    return [found[key] for key in sorted(found)]


def documents(file: Path) -> Iterator[str]:
    """Yield the texts of a file that are not blank. Raises ConfigError with the file and line."""
    try:
        import zstandard
    except ImportError as error:
        raise ConfigError(
            f"{file} is compressed by zstd, and the package zstandard is not installed.",
            remedy="pip install 'aira-harness[data]'",
        ) from error
    number = 0
    try:
        with file.open("rb") as packed:
            for line in _lines(packed, zstandard.ZstdDecompressor()):
                number += 1  # errors are told with it, also of the iterator
                if line.strip() and (text := _text(line)).strip():
                    yield text
    except (OSError, EOFError, ValueError, zstandard.ZstdError) as error:
        where = f"line {number}" if isinstance(error, ValueError) else f"after line {number}"
        raise ConfigError(
            f"{file}, {where}, cannot be read.",
            cause=str(error),
            remedy="replace it by a whole copy, or take it out of the folder",
        ) from error


def _lines(packed: BinaryIO, decompressor: "zstandard.ZstdDecompressor") -> Iterator[bytes]:
    """Yield the lines of a file of one or more zstd frames. Raises EOFError if one is cut off.

    A longer line than MOST_BYTES is cut.
    """
    frame, rest = None, b""
    while piece := packed.read(PIECE):
        while piece:
            frame = frame or decompressor.decompressobj()
            *lines, rest = (rest + frame.decompress(piece)).split(b"\n")
            yield from lines
            if len(rest) > MOST_BYTES:
                yield rest
            piece = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("it ends in the middle")
    yield rest


def _text(line: bytes) -> str:
    """Return the text in a line. Raises ValueError that says why there is none."""
    if len(line) > MOST_BYTES:
        raise ValueError(f"it is longer than {MOST_BYTES:,} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from error
    match value:
        case {"text": str(text)}:  # JSON can express lone surrogates, and UTF-8 cannot
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    raise ValueError('it is no object with a string "text"')
