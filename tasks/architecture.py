"""A submission that is an architecture: names of primitives, from the first layer to the last.

One rule says how it is written. A name is a capital letter and the small letters that belong to it
(A, M, Mb). Between names there may be nothing, spaces, commas or line ends. A line that begins with
# is a comment. Anything else is refused, with its place: a header, numbers, names in small letters.
"""

import re
from collections.abc import Iterator, Sequence

_NAME = re.compile(r"[A-Z][a-z]*")
_WORD = re.compile(r"[A-Z][a-z]*|[^\s,]+?(?=[\s,A-Z]|$)")
_BLOCK = re.compile(r"^(`{3,}|~{3,})[^\n]*\n(.*?)^\1", re.M | re.S)

RULE = (
    "names of primitives in order, with spaces, commas, line ends or nothing between them; "
    "a line that begins with # is a comment"
)


class Misread(ValueError):
    """The text is no architecture. The message says what stands where."""


def read(text: str, primitives: Sequence[str], layers: int) -> tuple[str, ...]:
    """Return the names in a text. Raises Misread if they are not ``layers`` of ``primitives``."""
    found = names(text, primitives)
    if len(found) != layers:
        has = f"it has {len(found)}" if found else "it is empty"
        raise Misread(f"{layers} layers are wanted, and {has}. Wanted: {RULE}.")
    return found


def names(text: str, primitives: Sequence[str]) -> tuple[str, ...]:
    """Return the names in a text, however many. Raises Misread if one is no primitive."""
    found = []
    for word, line, column in _words(text):
        if word not in primitives:
            raise Misread(
                f"line {line}, column {column}: {word[:20]!r} is not a primitive; there are "
                f"{' and '.join(primitives)}. Wanted: {RULE}."
            )
        found.append(word)
    return tuple(found)


def write(layers: Sequence[str]) -> str:
    """Return the usual text of an architecture, which ``read`` reads."""
    return " ".join(layers) + "\n"


def words(text: str) -> list[str]:
    """Return the names in a text, and whatever else stands between names, without comments."""
    return [word for word, _, _ in _words(text)]


def parse(text: str, files: Sequence[str]) -> dict[str, str]:
    """Return the architecture in a model's response: its last block, or else its last line.

    If it holds only names, they are written in the usual way, so that an architecture that is
    proposed again is the same file. Else it is left to the judge to say what is wrong. Raises
    ValueError.
    """
    blocks = [match[2] for match in _BLOCK.finditer(text)]
    lines = [line for line in text.split("\n") if line.strip()]
    given = [part for part in (blocks or lines) if part.strip()]
    if not given:
        raise ValueError(f"It names no primitives. Wanted: {RULE}.")
    named = words(given[-1])
    whole = named and all(map(_NAME.fullmatch, named))
    return {files[0]: write(named) if whole else given[-1].strip() + "\n"}


def _words(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield each name, and whatever else stands between names, with its line and column from 1."""
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.startswith("#"):
            for match in _WORD.finditer(line):
                yield match[0], number, match.start() + 1
