"""Makes rows for the swap test: text that at secret places continues in one of two natural ways.

At a *place* there are two possible continuations: the document's own, and one from another part
of the hidden text that follows the same tokens. A random coin, unknown to the candidate, decides
which one is shown. A causal model's preference between the two is fixed before it sees either,
and so cannot depend on the coin. The test itself is ``language_audits.swap``.

Either continuation is natural text until the next place. The rows are packed like the scored
rows, from documents that are used for nothing else.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.packing import pack

LONGEST_CONTEXT = 3
TRIES = 8
"""Continuations drawn for a place. The one whose probability under the reference is closest to that
of the document's own is taken: it is hardest to tell apart, and gives the test the least noise."""

NONE = -1

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenStream:
    """Hidden documents, concatenated, each beginning with BOS.

    tokens: uint16 (n,). starts: int64 (documents + 1,). reference: float32 (4, n); [k, t] is the
    log probability (nats) of token t given the k tokens before it, by the n-gram reference.
    """

    tokens: NDArray[np.uint16]
    starts: Ints
    reference: NDArray[np.float32]
    bos: int


@dataclass(frozen=True, slots=True)
class Places:
    """All places, sorted by row and position; arrays of equal length.

    ``position``: where the preference is read; the continuation begins at the next input. ``own``
    and ``other``: first tokens of the two continuations. ``sign``: +1 where the document's own is
    shown, -1 where the other is. ``reference``: log p(own) - log p(other) by the reference.
    ``after_bos``: whether the token at ``position`` is BOS. ``absent``: where in the stream the
    continuation that is not shown begins.
    """

    row: Ints
    position: Ints
    own: Ints
    other: Ints
    sign: Ints
    reference: NDArray[np.float64]
    after_bos: NDArray[np.bool_]
    absent: Ints


@dataclass(frozen=True, slots=True)
class Spliced:
    """Audited rows, uint16 (rows, length + 1), and their places."""

    rows: NDArray[np.uint16]
    places: Places


@dataclass(frozen=True, slots=True)
class _Document:
    tokens: list[int]
    places: list[tuple[int, int, int, int]]  # offset, stream position, alternative, sign


def alternatives(stream: TokenStream, rng: np.random.Generator) -> tuple[Ints, NDArray[np.int8]]:
    """Return for every stream position another one with the same last tokens, and how many agree.

    Both int (n,). The next tokens of the two positions differ. Tries LONGEST_CONTEXT tokens first,
    then fewer, until one of TRIES draws continues differently; NONE and 0 if none does.
    """
    tokens = stream.tokens.astype(np.int64)
    n = len(tokens)
    found = np.full(n, NONE, np.int64)
    agree = np.zeros(n, np.int8)
    size = int(tokens.max()) + 1
    for k in range(LONGEST_CONTEXT, 0, -1):
        key = tokens[k - 1 : n - 1].copy()
        for back in range(1, k):
            key = key + tokens[k - 1 - back : n - 1 - back] * size**back
        order = np.argsort(key, kind="stable")
        edges = np.flatnonzero(np.diff(key[order])) + 1
        begin = np.repeat(np.r_[0, edges], np.diff(np.r_[0, edges, len(key)]))
        end = np.repeat(np.r_[edges, len(key)], np.diff(np.r_[0, edges, len(key)]))
        open_ = np.flatnonzero((found[order + k - 1] == NONE) & (end - begin > 1))
        here = order[open_] + k - 1
        own = stream.reference[k][here + 1]
        closest = np.full(len(here), np.inf)
        for _ in range(TRIES):
            drawn = rng.integers(begin[open_], end[open_])
            there = order[drawn] + k - 1
            apart = np.abs(own - stream.reference[k][there + 1])
            better = (tokens[there + 1] != tokens[here + 1]) & (apart < closest)
            closest[better] = apart[better]
            found[here[better]] = there[better]
            agree[here[better]] = k
    return found, agree


def splice(
    stream: TokenStream, rows: int, length: int, gap: int, rng: np.random.Generator
) -> Spliced:
    """Return at most ``rows`` rows of ``length`` + 1 tokens, a place about every ``gap``."""
    elsewhere, agree = alternatives(stream, rng)
    documents: list[_Document] = []

    def lengths() -> Iterator[int]:
        for index in rng.permutation(len(stream.starts) - 1):
            document = _chain(stream, int(stream.starts[index]), elsewhere, gap, 8 * length, rng)
            documents.append(document)
            yield len(document.tokens)

    out = np.empty((rows, length + 1), np.uint16)
    found: list[tuple[int, int, int, int, int]] = []
    count = 0
    for packed in pack(lengths(), length + 1):
        if count == rows:
            break
        at = 0
        for index, take in packed:
            document = documents[index]
            out[count, at : at + take] = document.tokens[:take]
            whole = take == len(document.tokens)
            for offset, here, there, sign in document.places:
                # The last target is never sent, so no model can look ahead to it.
                if (
                    offset + 1 < take or (whole and offset + 1 == take)
                ) and at + offset + 1 < length:
                    found.append((count, at + offset, here, there, sign))
            at += take
        count += 1
    return Spliced(out[:count], _places(stream, found, agree))


def one_a_row(places: Places, rng: np.random.Generator) -> Ints:
    """Return the index of one place, drawn uniformly, for each row that has any; in row order."""
    order = rng.permutation(len(places.row))
    chosen: Ints = order[np.unique(places.row[order], return_index=True)[1]]
    return chosen


def twin(stream: TokenStream, spliced: Spliced, place: int) -> NDArray[np.uint16]:
    """Return the row of a place, from the place on replaced by the continuation not shown there."""
    places = spliced.places
    copy: NDArray[np.uint16] = spliced.rows[places.row[place]].copy()
    at = int(places.position[place]) + 1
    rest = np.arange(len(copy) - at) + places.absent[place]
    copy[at:] = stream.tokens[rest % len(stream.tokens)]
    return copy


def _chain(
    stream: TokenStream,
    start: int,
    elsewhere: Ints,
    gap: int,
    longest: int,
    rng: np.random.Generator,
) -> _Document:
    """Copy a document, jumping to another one at places where the coin says so.

    Stops at the end of the document that it is then in, or after ``longest`` tokens.
    """
    text: list[int] = []
    places: list[tuple[int, int, int, int]] = []
    here = start
    last = len(stream.tokens) - 1
    # Half of the documents have their first place right after BOS: otherwise a look-ahead that
    # happens only there would be hidden among the other places.
    left = 0 if rng.random() < 0.5 else int(rng.integers(1, 2 * gap))
    while len(text) < longest:
        text.append(int(stream.tokens[here]))
        following = here + 1
        if left == 0:
            left = int(rng.integers(1, 2 * gap))
            there = int(elsewhere[here])
            if there != NONE:
                sign = 1 if rng.random() < 0.5 else -1
                places.append((len(text) - 1, here, there, sign))
                following = following if sign > 0 else there + 1
        left -= 1
        if following > last or stream.tokens[following] == stream.bos:
            break
        here = following
    return _Document(text, places)


def _places(
    stream: TokenStream, found: list[tuple[int, int, int, int, int]], agree: NDArray[np.int8]
) -> Places:
    row, position, here, there, sign = np.array(found, np.int64).reshape(-1, 5).T
    k = agree[here]
    reference = stream.reference[k, here + 1] - stream.reference[k, there + 1]
    return Places(
        row=row,
        position=position,
        own=stream.tokens[here + 1].astype(np.int64),
        other=stream.tokens[there + 1].astype(np.int64),
        sign=sign,
        reference=reference.astype(np.float64),
        after_bos=stream.tokens[here] == stream.bos,
        absent=np.where(sign > 0, there + 1, here + 1),
    )
