"""Where the text comes from: the bundled corpus, a folder, or shards of climbmix.

A source hands out documents in two parts. ``hidden`` gives what the hidden splits and the
submission's own validation are drawn from, ``train`` the rest. A bundled corpus or a folder is
read into memory, exact duplicates are dropped, and the documents are ordered by a hash of their
content: the first 40 % of the text may become hidden. Climbmix is too large for that, and its
shards are shuffled already: the splits are whole shards, read as they are needed.
"""

import hashlib
import json
import lzma
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.base.errors import ConfigError, InfrastructureError
from tasks.autoresearch import download
from tasks.definition import Progress

Hidden = Literal["search", "test", "val"]

BUNDLED = Path(__file__).parent / "corpus" / "corpus.jsonl.xz"
HIDDEN_SHARE = 0.4
"""Largest share of a corpus, in characters, that the hidden splits may take."""
FILE_DOCUMENT = 10_000
"""Characters: a longer text file is cut into several documents."""
SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")

VALIDATION_SHARD = download.LAST_SHARD
SEARCH_SHARDS = (6540, 6538)
TEST_SHARDS = (6541, 6539)
"""Climbmix shards of the hidden splits. The public validation shard, 6542, is not one of them:
authors have seen it, so it is the submission's own validation."""
MAX_TRAIN_SHARDS = min(*SEARCH_SHARDS, *TEST_SHARDS)
SHARD_CHARACTERS, SHARD_TOKENS = 250_000_000, 50_000_000
"""What a shard holds at least."""


@dataclass(frozen=True)
class Corpus:
    """Documents of one corpus. ``hidden`` are iterators, consumed as splits draw from them.

    If ``one_pool``, the hidden iterators are one and the same, and documents that no split needs
    become training text. ``train_characters`` is about how many characters ``train`` gives.
    """

    hidden: dict[Hidden, Iterator[str]]
    train: Callable[[], Iterator[str]]
    one_pool: bool
    train_characters: int
    duplicates: int = 0


def fingerprint(text: str) -> bytes:
    """Return the hash by which documents are ordered, split and recognised as the same."""
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"autoresearch").digest()


def identity(source: str, shards: int) -> str:
    """Return a text that changes when the source's text may have changed, without reading it."""
    if source == "bundled":
        return hashlib.sha256(BUNDLED.read_bytes()).hexdigest()
    if source == "climbmix":
        return f"shards 0 to {shards - 1}"
    state = hashlib.sha256()
    for path in _files(Path(source)):
        stat = path.stat()
        state.update(f"{path.relative_to(source)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return state.hexdigest()


def pool(
    source: str, max_characters: int, max_document: int, progress: Progress
) -> tuple[list[str], int]:
    """Return the documents of ``bundled`` or of a folder, and how many duplicates were dropped.

    Documents are in the order of their fingerprints. Only the first ``max_characters`` of the
    source are read (0: all), and documents longer than ``max_document`` characters are cut (0: only
    text files are cut, at 10,000). Raises ConfigError naming a file that cannot be read.
    """
    texts = _bundled() if source == "bundled" else _folder(Path(source), max_document, progress)
    found: dict[bytes, str] = {}
    total = count = 0
    for text in texts:
        for document in cut(text, max_document):
            count += 1
            found.setdefault(fingerprint(document), document)
        total += len(text)
        if max_characters and total >= max_characters:
            break
    return [found[key] for key in sorted(found)], count - len(found)


def open_pool(documents: list[str], duplicates: int) -> Corpus:
    """Return the source whose hidden part is the beginning of ``documents``."""
    whole = sum(map(len, documents))
    at = total = 0
    while at < len(documents) and total + len(documents[at]) <= HIDDEN_SHARE * whole:
        total += len(documents[at])
        at += 1
    front = iter(documents[:at])
    hidden: dict[Hidden, Iterator[str]] = {"test": front, "search": front, "val": front}
    return Corpus(hidden, lambda: iter(documents[at:]), True, whole - total, duplicates)


def open_climbmix(
    folder: Path, shards: int, hidden_tokens: int, max_characters: int, progress: Progress
) -> Corpus:
    """Return climbmix after downloading ``shards`` shards of training text and the hidden ones.

    ``hidden_tokens`` is what each hidden split needs; it decides how many shards each gets. Raises
    ConfigError for a wrong number of shards, and what ``download.fetch`` raises.
    """
    if not 1 <= shards <= MAX_TRAIN_SHARDS:
        raise ConfigError(
            f"climbmix has shards for training from 1 to {MAX_TRAIN_SHARDS:,}, not {shards:,}.",
            remedy="the public task uses 10",
        )
    each = -(-hidden_tokens // SHARD_TOKENS)
    if each > len(TEST_SHARDS):
        raise ConfigError(
            f"A hidden split of {hidden_tokens:,} tokens is more than its "
            f"{len(TEST_SHARDS)} climbmix shards hold.",
            remedy="ask for fewer rows or audit_tokens",
        )
    groups = {
        "train": tuple(range(shards)),
        "search": SEARCH_SHARDS[:each],
        "test": TEST_SHARDS[:each],
        "val": (VALIDATION_SHARD,),
    }
    paths = download.fetch([n for group in groups.values() for n in group], folder, progress)
    by_name = {path.name: path for path in paths}

    def documents(group: str) -> Iterator[str]:
        for number in groups[group]:
            yield from _shard(by_name[download.shard_name(number)])

    def train() -> Iterator[str]:
        total = 0
        for text in documents("train"):
            yield text
            total += len(text)
            if max_characters and total >= max_characters:
                return

    return Corpus(
        {"search": documents("search"), "test": documents("test"), "val": documents("val")},
        train,
        False,
        max_characters or shards * SHARD_CHARACTERS,
    )


def cut(text: str, limit: int) -> Iterator[str]:
    """Yield ``text`` in pieces of at most ``limit`` characters (0: whole); none if it is blank.

    Cuts lie, in this order of preference, between paragraphs, lines, sentences or words.
    """
    start = 0
    while limit and len(text) - start > limit:
        at = start + limit
        for mark in ("\n\n", "\n", ". ", " "):
            found = text.rfind(mark, start + limit // 4, at)
            if found > 0:
                at = found + len(mark)
                break
        piece = text[start:at].strip()
        if piece:
            yield piece
        start = at
    rest = text[start:]
    if rest.strip():
        yield rest


def _bundled() -> Iterator[str]:
    with lzma.open(BUNDLED, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(
            f"There is no folder {folder} to take text from.",
            remedy="--data takes bundled, climbmix, or a folder",
        )
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise ConfigError(
            f"{folder} holds no text.",
            cause=f"no file in it, or below, ends in {', '.join(SUFFIXES)}",
        )
    return files


def _folder(folder: Path, max_document: int, progress: Progress) -> Iterator[str]:
    files = _files(folder)
    for number, path in enumerate(files):
        progress(f"reading {folder}, files", number, len(files))
        if path.suffix == ".parquet":
            texts: Iterable[str] = parquet_texts(path)
        elif path.suffix == ".jsonl":
            texts = _json_lines(path)
        else:
            texts = cut(_read(path), max_document or FILE_DOCUMENT)
        for text in texts:
            yield _whole(text)
    progress(f"reading {folder}, files", len(files), len(files))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text.",
            cause=str(error),
            remedy="convert it (iconv -t UTF-8), or take it out of the folder",
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read.", cause=str(error)) from error


def _json_lines(path: Path) -> Iterator[str]:
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}, is not JSON.", cause=str(error)) from error
        text = value.get("text") if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise ConfigError(
                f"{path}, line {number}, holds no text.",
                remedy='a line is a JSON string, or an object with a string "text"',
            )
        yield text


def parquet_texts(path: Path) -> Iterator[str]:
    """Yield the column ``text`` of a parquet file, by group. Raises ConfigError naming the file."""
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    fault = download.damage(path)
    if not fault:
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    for text in file.read_row_group(group, columns=["text"])["text"].to_pylist():
                        if isinstance(text, str):
                            yield text
        except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
            fault = str(error)
    if fault:
        raise ConfigError(
            f"{path} cannot be used as a parquet file of texts.",
            cause=fault,
            remedy="replace it, or take it out of the folder",
        )


def _shard(path: Path) -> Iterator[str]:
    try:
        yield from parquet_texts(path)
    except ConfigError as error:
        path.unlink(missing_ok=True)
        raise InfrastructureError(
            f"{path.name} is damaged and was removed.",
            cause=error.cause,
            remedy="run the same command again: it is downloaded anew",
        ) from error


def _whole(text: str) -> str:
    """Replace lone surrogates, which JSON can express but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
