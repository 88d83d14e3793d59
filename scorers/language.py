"""The judge of language models: bits-per-byte on hidden rows, and the audits that it needs.

A row of T + 1 tokens is shown as its first T; the target of position t is token t + 1, so all
but the last target lie in the input, and only the audits keep a model from looking. One random
sequence of requests holds scored rows, spliced rows (``splice``), twins of some of those, and
some rows again; nothing marks which is which.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorers import audits, language_audits, serving_order, splice
from scorers.gpu_reader import GpuReader
from scorers.judge import (
    Observe,
    ServeLate,
    Times,
    TrainLate,
    Verdict,
    ask,
    dismiss,
    follow_training,
)
from scorers.language_audits import Pair, Swapped
from scorers.reading import HostReader, Reader, Reading
from scorers.score import Audit, Reason
from scorers.wire import Late, LogitsBuffer, ProtocolError, Wire

COLUMNS = 32
"""Tokens of the vocabulary, drawn once an evaluation, whose log probabilities are compared."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is audited: rows with places, tokens between places, twins, rows asked again."""

    audit_rows: int
    gap: int
    twins: int
    repeats: int


@dataclass
class _Seen:
    """What is kept of the answers, in the order in which they came."""

    nats: NDArray[np.float32]
    order: list[int] = field(default_factory=list)
    kept: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = field(default_factory=dict)
    places: list[NDArray[np.int64]] = field(default_factory=list)
    preferences: list[NDArray[np.float64]] = field(default_factory=list)
    leans: dict[int, dict[int, float]] = field(default_factory=dict)
    repeats: list[Pair] = field(default_factory=list)
    prefixes: list[Pair] = field(default_factory=list)
    bad: int = 0


class Language:
    """An Examiner. What it will ask is drawn when it is made, before the candidate starts."""

    def __init__(
        self,
        folder: Path,
        shape: dict[str, int],
        sizes: Sizes,
        *,
        max_batch: int,
        audit_seed: str,
        tell: bool,
        gpu: str | None = None,
    ) -> None:
        def load(name: str) -> Any:  # noqa: ANN401 (arrays of several types)
            return np.load(folder / f"{name}.npy", allow_pickle=False)

        self._rng = np.random.default_rng(list(audit_seed.encode()))
        self._vocabulary, self._length = shape["vocabulary"], shape["length"]
        self._max_batch, self._tell = max_batch, tell
        self.buffer_bytes = max_batch * self._length * self._vocabulary * 4
        rows: NDArray[np.uint16] = load("rows")
        self._reference = load("rows_reference").astype(np.float64).mean(axis=1)
        self._bytes = load("token_bytes").astype(np.int64)
        self._scored = len(rows)
        stream = splice.Stream(
            load("audit_tokens"), load("audit_starts"), load("audit_reference"), shape["bos"]
        )
        spliced = splice.splice(stream, sizes.audit_rows, self._length, sizes.gap, self._rng)
        self._places = places = spliced.places
        n = len(places.row)
        # One twin a row at most, at a place picked evenly among all.
        _, chosen = np.unique(places.row[order := self._rng.permutation(n)], return_index=True)
        twinned = self._rng.permutation(order[chosen])[: sizes.twins]
        twins = [splice.twin(stream, spliced, int(place)) for place in twinned]
        self._items = np.concatenate(
            [rows, spliced.rows, np.array(twins).reshape(-1, rows.shape[1])]
        )
        self._twin_place = {
            self._scored + len(spliced.rows) + i: int(p) for i, p in enumerate(twinned)
        }
        self._twins: dict[int, int] = {}
        for item, place in self._twin_place.items():
            first = self._scored + int(places.row[place])
            self._twins |= {item: first, first: item}
        self._again = set(self._rng.permutation(self._scored)[: sizes.repeats].tolist())
        self._columns = self._rng.choice(
            self._vocabulary, min(COLUMNS, self._vocabulary), replace=False
        )
        edges = np.searchsorted(places.row, np.arange(len(spliced.rows) + 1))
        self._row_places = {
            self._scored + row: np.arange(edges[row], edges[row + 1])
            for row in range(len(spliced.rows))
        }
        self._gpu = gpu
        self._reader: Reader | None = None

    def close(self) -> None:
        """Let go of the candidate's buffer."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def examine(
        self, wire: Wire, buffer: LogitsBuffer, *, times: Times, observe: Observe
    ) -> Verdict:
        """Serve every row and measure bits-per-byte."""
        train_deadline = times.spawned + times.train_s
        claim = follow_training(wire, train_deadline, observe)
        size = self._batch_size(claim)
        began = time.monotonic()
        if self._gpu is not None and "device_buffer" in claim:
            self._reader = GpuReader(claim, self._vocabulary, self._gpu)
        else:
            self._reader = HostReader(buffer, self._vocabulary)
        starting_s = time.monotonic() - began  # the judge's time is not the candidate's
        train_deadline += starting_s
        plan = serving_order.batches(
            len(self._items), self._twins, sorted(self._again), size, self._rng
        )
        observe("serving", {"batches": len(plan)})
        seen = _Seen(np.full((len(self._items), self._length), np.nan, np.float32))
        met: set[int] = set()
        deadline, started, own_s = train_deadline, time.monotonic(), 0.0
        shape = (size, self._length, self._vocabulary)
        try:
            for sequence, batch in enumerate(plan):
                ask(wire, sequence, self._items[batch, :-1].astype(np.int32), shape, deadline)
                arrived = time.monotonic()
                if sequence == 0:
                    started = arrived
                    deadline = started + times.serve_s
                self._read(seen, met, sequence, batch)
                own_s += time.monotonic() - arrived
                deadline += time.monotonic() - arrived  # the judge's time is not the candidate's
                observe("served", {"done": sequence + 1, "batches": len(plan)})
                if seen.bad:
                    break
        except Late:
            raise (TrainLate if not met else ServeLate) from None
        served = time.monotonic()
        verdict = self._verdict(
            seen, claim, started - times.spawned - starting_s, served - started, own_s
        )
        told = self._tell and verdict.failed is None
        dismiss(wire, round(verdict.score, 6) if told else None, time.monotonic())
        return verdict

    def _batch_size(self, claim: dict[str, Any]) -> int:
        size = claim.get("batch_size")
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= self._max_batch:
            raise ProtocolError(
                f"a batch of {size!r} rows; evaluate_bpb takes 1 to {self._max_batch}"
            )
        return size

    def _read(self, seen: _Seen, met: set[int], sequence: int, batch: NDArray[np.int64]) -> None:
        """Take from one answer all that will be needed of it."""
        if self._reader is None:
            raise AssertionError("read before examine")
        targets = self._items[batch, 1:].astype(np.int64)
        wanted: dict[int, NDArray[np.int64]] = {}
        picks = [np.empty((0, 3), np.int64)]
        for row, item in enumerate(int(i) for i in batch):
            numbers = self._row_places.get(item, np.empty(0, np.int64))
            if item in self._twin_place:
                numbers = np.array([self._twin_place[item]])
            if item in met or not len(numbers) or item in wanted:
                continue
            wanted[item] = numbers
            at = self._places.position[numbers]
            for tokens in (self._places.own[numbers], self._places.other[numbers]):
                picks.append(np.stack([np.full(len(at), row), at, tokens], axis=1))
        reading = self._reader.read(targets, self._columns, np.concatenate(picks))
        seen.bad += reading.bad
        self._keep(seen, met, sequence, batch, reading)
        start = 0
        for item, numbers in wanted.items():
            own, other = reading.picks[start : start + 2 * len(numbers)].reshape(2, -1)
            start += 2 * len(numbers)
            preference = own.astype(np.float64) - other
            self._note_preferences(seen, sequence, item, numbers, preference)

    def _keep(
        self,
        seen: _Seen,
        met: set[int],
        sequence: int,
        batch: NDArray[np.int64],
        reading: Reading,
    ) -> None:
        for row, item in enumerate(int(i) for i in batch):
            answer = (reading.nats[row], reading.sketch[row])
            if item not in met:
                met.add(item)
                seen.order.append(item)
                seen.nats[item] = answer[0]
                if item in self._again or item in self._twins:
                    seen.kept[item] = (answer[0].copy(), answer[1].copy())
            elif item in seen.kept:
                seen.repeats.append(
                    _pair(item, sequence, seen.kept[item], answer, self._length, self._length)
                )
            elif item < self._scored:  # asked again only to fill a batch
                before = (seen.nats[item], answer[1][:, :0])
                targets = (answer[0], answer[1][:, :0])
                seen.repeats.append(
                    _pair(item, sequence, before, targets, self._length, self._length)
                )

    def _note_preferences(
        self,
        seen: _Seen,
        sequence: int,
        item: int,
        numbers: NDArray[np.int64],
        preference: NDArray[np.float64],
    ) -> None:
        """File preferences for the swap test, and for the twin test where both twins were met."""
        place = self._twin_place.get(item)
        sibling = self._twins.get(item)
        if sibling is not None:
            if place is None:
                place = self._twin_place[sibling]
            value = float(preference[list(numbers).index(place)])
            # With sign: how much the place's own continuation is preferred where it stands.
            stands = int(self._places.sign[place]) * (-1 if item in self._twin_place else 1)
            seen.leans.setdefault(place, {})[stands] = value
            if len(seen.leans[place]) == 2:
                at = int(self._places.position[place])
                lean = (seen.leans[place][1] - seen.leans[place][-1]) / 2
                pair = _pair(item, sequence, seen.kept[sibling], seen.kept[item], at, at + 1)
                seen.prefixes.append(
                    Pair(pair.item, sequence, max(pair.spread, abs(lean)), pair.at, lean)
                )
        if item in self._twin_place:
            # The place was met before, unless its twin is the first of the two: then the coin
            # is the twin's.
            return
        keep = np.array([len(seen.leans.get(int(n), {})) < 2 for n in numbers])
        seen.places.append(numbers[keep])
        seen.preferences.append(preference[keep])

    def _verdict(
        self, seen: _Seen, claim: dict[str, Any], train_s: float, serve_s: float, own_s: float
    ) -> Verdict:
        began = time.monotonic()
        finite = audits.finiteness(seen.bad)
        checked: list[Audit] = [finite]
        failed: Reason | None = None
        message, score, error, resolution = "", float("nan"), float("nan"), None
        if not finite.passed:
            failed, message = Reason.NOT_FINITE, f"{seen.bad:,} served logits are not finite."
        else:
            score, error, bytes_per_token = self._bits_per_byte(seen.nats[: self._scored])
            checks, resolution = self._checks(seen, bytes_per_token)
            for audit, reason, words in checks:
                checked.append(audit)
                if failed is None and not audit.passed:
                    failed, message = reason, words
        return Verdict(
            score=score,
            standard_error=error,
            audits=tuple(checked),
            failed=failed,
            message=message,
            claim=claim,
            train_s=train_s,
            serve_s=serve_s,
            judge_s=own_s + time.monotonic() - began,
            resolution=resolution,
        )

    def _checks(
        self, seen: _Seen, bytes_per_token: float
    ) -> tuple[list[tuple[Audit, Reason, str]], float]:
        shown = Swapped(
            np.concatenate([np.empty(0, np.int64), *seen.places]),
            np.concatenate([np.empty(0), *seen.preferences]),
        )
        swap, at, resolution = language_audits.swap(self._places, shown, bytes_per_token)
        prefix, differs = language_audits.agreement("prefix", seen.prefixes)
        lean, leaning = language_audits.drift("prefix lean", seen.prefixes)
        same, moved = language_audits.agreement("statelessness", seen.repeats)
        gain, gaining = language_audits.drift("repeats", seen.repeats)
        order = [i for i in seen.order if i < self._scored]
        trend = language_audits.trend(
            seen.nats[order].astype(np.float64).mean(axis=1), -self._reference[order]
        )
        ahead = "Logits depend on tokens that come later: "
        state = "Logits depend on more than their row: "
        # What changes between two askings also changes twins: the first that fails is the cause.
        return [
            (same, Reason.STATEFUL, f"{state}{moved}."),
            (gain, Reason.STATEFUL, f"{state}rows asked again cost less, {gaining}."),
            (prefix, Reason.LOOKS_AHEAD, f"{ahead}{differs}."),
            (lean, Reason.LOOKS_AHEAD, f"{ahead}{leaning}."),
            (swap, Reason.LOOKS_AHEAD, f"{ahead}{at}."),
            (
                trend,
                Reason.TREND,
                f"Rows become cheaper while serving ({trend.value:.1f} standard deviations).",
            ),
        ], resolution

    def _bits_per_byte(self, nats: NDArray[np.float32]) -> tuple[float, float, float]:
        """Return bits-per-byte, its standard error over rows, and bytes per counted token."""
        count = self._bytes[self._items[: self._scored, 1:].astype(np.int64)]
        row_nats = np.where(count > 0, nats, 0).sum(axis=1, dtype=np.float64)
        row_bytes = count.sum(axis=1)
        ratio = float(row_nats.sum() / row_bytes.sum())
        n = len(row_nats)
        spread = float(np.square(row_nats - ratio * row_bytes).sum()) * n / max(1, n - 1)
        bits = np.log(2)
        error = np.sqrt(spread) / row_bytes.sum() / bits
        return float(ratio / bits), float(error), float(row_bytes.sum() / np.count_nonzero(count))


def _pair(
    item: int,
    sequence: int,
    before: tuple[NDArray[np.float32], NDArray[np.float32]],
    after: tuple[NDArray[np.float32], NDArray[np.float32]],
    targets: int,
    positions: int,
) -> Pair:
    """Compare two answers over their first ``targets`` targets and ``positions`` positions."""
    gain = before[0][:targets].astype(np.float64) - after[0][:targets]
    columns = before[1][:positions].astype(np.float64) - after[1][:positions]
    square = np.square(columns).sum(axis=1)
    square[:targets] += gain**2
    spread = np.sqrt(square / (columns.shape[1] + 1))
    at = int(spread.argmax()) if len(spread) else 0
    return Pair(
        item,
        sequence,
        float(spread[at]) if len(spread) else 0.0,
        at,
        float(gain.mean()) if len(gain) else 0.0,
    )
