"""The strict check: the exported model, served by two processes that share no memory.

The swap test must allow for a candidate that remembers its earlier answers, and that costs it
resolution. Here the candidate can remember nothing: the model is exported before it has seen a
row, its process has ended, and a fresh process in a fresh sandbox serves each half of the rows.
Every audited row is in one half and its twin in the other; from one place on, the twin continues
differently. Some scored rows are in both halves. A stateless causal model answers equally, up to
rounding, before that place and on a shared row, so no noise has to be averaged away.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorers import language_audits
from scorers.gpu_reader import Readers
from scorers.judge import Check, Times, Verdict, ask, send_goodbye
from scorers.judge import follow_training as follow_loading
from scorers.language_audits import TwinAnswers
from scorers.reading import LogitsReader, ReadRequest, pairs
from scorers.request import Observe
from scorers.score import Reason
from scorers.splice import Spliced, TokenStream, one_a_row, twin
from scorers.wire import LogitsBuffer, Wire

Ints = NDArray[np.int64]
NONE = -1
HELD = "held: the score is of the exported model, served by fresh processes"


@dataclass(frozen=True)
class ServedRows:
    """Rows to serve. tokens: uint16 (n, length + 1). The preference log p(own) - log p(other) is
    asked for at ``position`` (n,), or not at all where that is NONE."""

    tokens: NDArray[np.uint16]
    position: Ints
    own: Ints
    other: Ints

    @classmethod
    def plain(cls, tokens: NDArray[np.uint16]) -> "ServedRows":
        """Return rows at which no preference is asked for."""
        none = np.full(len(tokens), NONE, np.int64)
        return cls(tokens, none, none, none)

    def and_then(self, more: "ServedRows") -> "ServedRows":
        """Return these rows followed by ``more``."""
        return ServedRows(
            np.concatenate([self.tokens, more.tokens]),
            np.concatenate([self.position, more.position]),
            np.concatenate([self.own, more.own]),
            np.concatenate([self.other, more.other]),
        )


class Half:
    """An Examiner that serves one half of the rows to a frozen model, in random order.

    Each row is served once; random rows are repeated to fill the last batch. Afterwards ``nats``,
    the loss of each target, is float32 (n, length), and ``preference`` is float64 (n,).
    """

    def __init__(
        self,
        rows: ServedRows,
        size: int,
        vocabulary: int,
        rng: np.random.Generator,
        gpu: str | None,
    ) -> None:
        self._rows, self._vocabulary = rows, vocabulary
        n, length = len(rows.tokens), rows.tokens.shape[1] - 1
        missing = -n % size  # random rows again, to fill the last batch
        order = np.concatenate([rng.permutation(n), rng.integers(0, n, missing)])
        self._plan = order.reshape(-1, size)
        self._shape = (size, length, vocabulary)
        self.buffer_bytes = size * length * vocabulary * 4
        self.nats = np.full((n, length), np.nan, np.float32)
        self.preference = np.zeros(n)
        self._readers = Readers(vocabulary, gpu)

    def close(self) -> None:
        """Release the candidate's buffer."""
        self._readers.close()

    def examine(
        self, wire: Wire, buffer: LogitsBuffer, *, times: Times, observe: Observe
    ) -> Verdict:
        """Serve the rows. The verdict has no score: ``HalvesPlan.compare`` needs both halves."""
        deadline = times.spawned + times.train_s
        claim = follow_loading(wire, deadline, observe)
        reader = self._readers.open(claim, buffer)
        started, bad = time.monotonic(), 0
        for sequence, batch in enumerate(self._plan):
            tokens = self._rows.tokens[batch]
            ask(wire, sequence, tokens[:, :-1].astype(np.int32), self._shape, deadline)
            if sequence == 0:
                deadline = time.monotonic() + times.serve_s
            bad += self._read(reader, batch)
            observe("served", {"done": sequence + 1, "batches": len(self._plan)})
        send_goodbye(wire, None, time.monotonic())
        nan, served = float("nan"), time.monotonic()
        failed = Reason.NOT_FINITE if bad else None
        train_s = started - times.spawned
        return Verdict(nan, nan, (), failed, "", claim, train_s, served - started, 0.0)

    def _read(self, reader: LogitsReader, batch: Ints) -> int:
        rows = np.flatnonzero(self._rows.position[batch] != NONE)
        items = batch[rows]
        own, other = self._rows.own[items], self._rows.other[items]
        picks = pairs(rows, self._rows.position[items], own, other)
        none = np.empty(0, np.int64)
        reader.begin(ReadRequest(self._rows.tokens[batch, 1:], none, none, picks))
        bad = reader.copied()
        reading = reader.reading()
        self.nats[batch] = reading.nats
        self.preference[items] = reading.preferences
        return bad


@dataclass
class HalvesPlan:
    """The rows of both halves. ``first``: scored rows, then audited rows. ``second``: the twins of
    the audited rows, in the same order, then the scored rows numbered in ``again``.

    ``sign`` (audited,): +1 where the first half shows the document's own continuation, else -1.
    """

    first: ServedRows
    second: ServedRows
    scored: int
    again: Ints
    sign: Ints

    def halves(
        self, size: int, vocabulary: int, rng: np.random.Generator, gpu: str | None
    ) -> tuple[Half, Half]:
        """Return the two examiners, to be run in separate sandboxes."""
        return (
            Half(self.first, size, vocabulary, rng, gpu),
            Half(self.second, size, vocabulary, rng, gpu),
        )

    def compare(self, first: Half, second: Half) -> tuple[list[Check], float]:
        """Return the checks, and the resolution in nats per token."""
        audited = len(self.sign)
        twins, repeats = [], []
        for i in range(audited):
            at, row = int(self.second.position[i]), self.scored + i
            apart = np.abs(first.nats[row, :at] - second.nats[i, :at])
            lean = float(self.sign[i] * (first.preference[row] - second.preference[i]) / 2)
            twins.append(_pair(row, apart, abs(lean), lean))
        for i, item in enumerate(self.again):
            cheaper = second.nats[audited + i] - first.nats[item]
            repeats.append(_pair(int(item), np.abs(cheaper), 0.0, float(cheaper.mean())))
        prefix, differs = language_audits.agreement("frozen twins", twins)
        lean_audit, leaning = language_audits.drift("frozen twins lean", twins)
        same, moved = language_audits.agreement("frozen repeats", repeats)
        gain, gaining = language_audits.drift("frozen repeats mean", repeats)
        ahead = "The exported model's logits depend on tokens that come later: "
        state = "The exported model's logits depend on more than their row: "
        checks = [
            (same, Reason.STATEFUL, f"{state}{moved}."),
            (gain, Reason.STATEFUL, f"{state}{gaining}."),
            (prefix, Reason.LOOKS_AHEAD, f"{ahead}{differs}."),
            (lean_audit, Reason.LOOKS_AHEAD, f"{ahead}{leaning}."),
        ]
        seen = [
            language_audits.seen_drift(twins),
            language_audits.seen_drift(repeats),
            language_audits.rare_gain(first.nats[: self.scored], audited),
        ]
        return checks, max(seen)


def check(
    stream: TokenStream,
    spliced: Spliced,
    scored: NDArray[np.uint16],
    again: Ints,
    rng: np.random.Generator,
) -> HalvesPlan:
    """Give every audited row a twin that continues differently from one of its places on."""
    places = spliced.places
    number = one_a_row(places, rng)
    twins = [twin(stream, spliced, int(place)) for place in number]
    at = (places.position[number], places.own[number], places.other[number])
    audited = ServedRows(spliced.rows[places.row[number]], *at)
    twin_rows = ServedRows(np.array(twins).reshape(-1, scored.shape[1]), *at)
    return HalvesPlan(
        first=ServedRows.plain(scored).and_then(audited),
        second=twin_rows.and_then(ServedRows.plain(scored[again])),
        scored=len(scored),
        again=again,
        sign=places.sign[number],
    )


def _pair(item: int, apart: NDArray[np.float32], least: float, gain: float) -> TwinAnswers:
    at = int(apart.argmax()) if len(apart) else 0
    return TwinAnswers(item, 0, max(least, float(apart[at]) if len(apart) else 0.0), at, gain)


def taken(claim: dict[str, Any], most: int) -> tuple[int, str]:
    """Return the size in bytes of the exported model in the buffer; if none, 0 and the reason."""
    frozen = claim.get("frozen")
    if not isinstance(frozen, dict):
        return 0, "the submission said nothing of it"
    size = frozen.get("bytes")
    if isinstance(size, int) and not isinstance(size, bool) and 0 < size <= most:
        return size, ""
    return 0, str(frozen.get("error", "what it lent is no file"))
