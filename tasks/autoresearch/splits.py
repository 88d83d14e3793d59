"""Draws the hidden splits and the validation from a source's documents, and writes tokens."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tasks.autoresearch.sources import fingerprint
from tasks.autoresearch.tokenizer import Tokens
from tasks.packing import pack

Document = tuple[str, Tokens]

SPARE = 1.1
"""At first, this many times the tokens of the rows are drawn, because packing crops some."""


class TooSmall(Exception):
    """The documents ran out before a split had what it needs."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class DocumentReader:
    """Hands out documents one by one; ``tokens`` counts what it has handed out."""

    def __init__(self, encoded: Iterator[Document]) -> None:
        self._encoded = encoded
        self.tokens = 0

    def draw(self) -> Document | None:
        """Return the next document, or None when there are no more."""
        document = next(self._encoded, None)
        self.tokens += 0 if document is None else len(document[1])
        return document

    def rest(self) -> Iterator[Document]:
        """Yield the documents that are left."""
        while (document := self.draw()) is not None:
            yield document


def without_repeats(texts: Iterable[str], seen: set[bytes]) -> Iterator[str]:
    """Yield those of ``texts`` that are not in ``seen``, a set of fingerprints; add them to it."""
    for text in texts:
        key = fingerprint(text)
        if key not in seen:
            seen.add(key)
            yield text


def draw_documents(drawer: DocumentReader, tokens: int) -> list[Document]:
    """Return whole documents of ``tokens`` tokens or a little more. Raises TooSmall."""
    found: list[Document] = []
    total = 0
    while total < tokens:
        document = drawer.draw()
        if document is None:
            raise TooSmall(f"{tokens:,} tokens of whole documents, and got {total:,}")
        found.append(document)
        total += len(document[1])
    return found


@dataclass(frozen=True)
class Packed:
    """Rows uint16 (rows, capacity), the documents in them, and the drawn documents in no row."""

    rows: Tokens
    used: list[Document]
    unused: list[Document]


def draw_rows(drawer: DocumentReader, rows: int, capacity: int, seed: int) -> Packed:
    """Pack documents into ``rows`` rows of ``capacity`` tokens, as the public loader packs.

    Documents are drawn until they fill enough rows. ``rows`` of these are chosen at random, because
    a buffer that has just been filled gives different rows from one long in use. Raises TooSmall.
    """
    found: list[Document] = []
    need = SPARE * rows * capacity
    filled = 0
    while True:
        while filled < need:
            document = drawer.draw()
            if document is None:
                break
            found.append(document)
            filled += min(len(document[1]), capacity)
        packed = list(pack((len(tokens) for _, tokens in found), capacity))
        if len(packed) >= rows:
            break
        if filled < need:
            raise TooSmall(f"{rows:,} rows of {capacity:,} tokens, and got {len(packed):,}")
        need += max(capacity, (rows - len(packed)) * capacity)
    order = np.argsort(np.random.PCG64(seed).random_raw(len(packed)), kind="stable")
    chosen = [packed[i] for i in order[:rows]]
    array = np.empty((rows, capacity), np.uint16)
    for row, places in zip(array, chosen, strict=True):
        row[:] = np.concatenate([found[index][1][:take] for index, take in places])
    within = {index for places in chosen for index, _ in places}
    return Packed(
        array,
        [found[i] for i in sorted(within)],
        [document for i, document in enumerate(found) if i not in within],
    )


class TokenFile:
    """Writes any number of documents to a one-dimensional uint16 ``.npy`` file, as they come.

    numpy leaves room in the header for a longer shape, so the header is written again at the
    end, in place. ``starts`` are the documents' offsets.
    """

    def __init__(self, path: Path) -> None:
        self._out = path.open("wb")
        self.starts = [0]
        self._write_header()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._out.seek(0)
            self._write_header()
        self._out.close()

    def add(self, tokens: Tokens) -> None:
        """Append one document."""
        self._out.write(tokens.astype("<u2", copy=False).data)
        self.starts.append(self.starts[-1] + len(tokens))

    def _write_header(self) -> None:
        header = {"descr": "<u2", "fortran_order": False, "shape": (self.starts[-1],)}
        np.lib.format.write_array_header_1_0(self._out, header)


def write_documents(
    documents: Iterable[Document],
    folder: Path,
    prefix: str = "",
    progress: Callable[[int], None] = lambda millions: None,
) -> Iterator[str]:
    """Write ``{prefix}tokens.npy`` and ``{prefix}starts.npy``, yielding the texts on the way.

    ``progress`` is called with the number of million characters done.
    """
    characters = 0
    with TokenFile(folder / f"{prefix}tokens.npy") as file:
        for text, tokens in documents:
            file.add(tokens)
            before, characters = characters, characters + len(text)
            if characters // 10**6 > before // 10**6:
                progress(characters // 10**6)
            yield text
    np.save(folder / f"{prefix}starts.npy", np.array(file.starts, np.int64))


def concatenated(documents: list[Document]) -> tuple[Tokens, NDArray[np.int64]]:
    """Return the documents' tokens in one array, and their starts (documents + 1,)."""
    lengths = [len(tokens) for _, tokens in documents]
    return np.concatenate([t for _, t in documents]), np.cumsum([0, *lengths], dtype=np.int64)


def hidden_tokens(rows: int, capacity: int, audit_tokens: int) -> int:
    """Return about how many tokens of text one hidden split uses up, cropped ones included.

    The public loader is reported to lose 35 % of its tokens to cropping.
    """
    return audit_tokens + math.ceil(1.6 * rows * capacity)
