"""The judge of language models: bits-per-byte on hidden rows, and the audits that it needs.

The candidate sees the first T tokens of a row of T + 1 tokens. The target of position t is token
t + 1, so all targets but the last are in the input, and only the audits detect a model that looks
ahead. One random sequence of requests holds scored rows, spliced rows (``splice``), twins of some
spliced rows, and some rows again; nothing in a request marks its kind. The statistics of the audits
are in ``language_audits``.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from scorers import audits, frozen, language_audits, serving_order, splice
from scorers.gpu_reader import Readers
from scorers.judge import Check, Times, Verdict, ask, first_failure, follow_training, send_goodbye
from scorers.language_audits import Swapped, TwinAnswers
from scorers.reading import ReadRequest, ReadResult, pairs
from scorers.request import Observe, Request
from scorers.score import Reason
from scorers.wire import LogitsBuffer, ProtocolError, Wire

COLUMNS = 32
"""How many vocabulary tokens, drawn once per evaluation, have their log probabilities compared."""


@dataclass(frozen=True, slots=True)
class AuditSizes:
    """How much is audited: spliced rows, tokens between places, twins, scored rows asked again."""

    audit_rows: int
    gap: int
    twins: int
    repeats: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request. ``items``: the item number of each of its rows. ``new``: rows whose item is
    asked for the first time.

    tokens: int32 (rows, length), as they are sent. ``places``: for each row, in ascending order,
    the numbers of the places whose preferences are read.
    """

    sequence: int
    tokens: NDArray[np.int32]
    items: list[int]
    new: set[int]
    places: dict[int, NDArray[np.int64]]
    question: ReadRequest


@dataclass
class _Seen:
    """What is kept of the answers. Lists are in the order in which the answers came."""

    nats: NDArray[np.float32]
    order: list[int] = field(default_factory=list)
    sketches: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    places: list[NDArray[np.int64]] = field(default_factory=list)
    preferences: list[NDArray[np.float64]] = field(default_factory=list)
    leans: dict[int, dict[int, float]] = field(default_factory=dict)
    repeats: list[TwinAnswers] = field(default_factory=list)
    prefixes: list[TwinAnswers] = field(default_factory=list)
    bad: int = 0


class Language:
    """An Examiner. Its rows are drawn in the constructor, before the candidate starts."""

    def __init__(
        self,
        folder: Path,
        shape: dict[str, int],
        sizes: AuditSizes,
        *,
        max_batch: int,
        audit_seed: str,
        tell: bool,
        gpu: str | None = None,
        strict: Path | None = None,
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
        stream = splice.TokenStream(
            load("audit_tokens"), load("audit_starts"), load("audit_reference"), shape["bos"]
        )
        spliced = splice.splice(stream, sizes.audit_rows, self._length, sizes.gap, self._rng)
        self._places = places = spliced.places
        twinned = self._rng.permutation(splice.one_a_row(places, self._rng))[: sizes.twins]
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
        self._places_of = {
            self._scored + row: np.arange(edges[row], edges[row + 1])
            for row in range(len(spliced.rows))
        }
        self._places_of |= {item: np.array([place]) for item, place in self._twin_place.items()}
        self._gpu, self._frozen_at, self.batch_size = gpu, strict, 0
        self.not_frozen = "" if strict is None else "the submission was not served"
        again = np.array(sorted(self._again), np.int64)
        self._check = frozen.check(stream, spliced, rows, again, self._rng) if strict else None
        # Last, because it starts a process, which gets ready while the candidate trains.
        self._readers = Readers(self._vocabulary, gpu)

    @classmethod
    def of(cls, request: Request, *, frozen_at: Path | None) -> Self:
        """Return the examiner of a request; its profile says how much is audited."""
        profile = request.task.profile(request.profile)
        return cls(
            request.hidden,
            request.manifest.shape,
            AuditSizes(**{k: int(v) for k, v in profile.judge.items()}),
            max_batch=int(profile.settings["max_batch"]),
            audit_seed=request.audit_seed,
            tell=request.split == "search",
            gpu=request.gpus[0] if request.gpus else None,
            strict=frozen_at,
        )

    def close(self) -> None:
        """Release the candidate's buffer."""
        self._readers.close()

    def examine(
        self, wire: Wire, buffer: LogitsBuffer, *, times: Times, observe: Observe
    ) -> Verdict:
        """Serve every row and measure bits-per-byte."""
        train_deadline = times.spawned + times.train_s
        claim = follow_training(wire, train_deadline, observe)
        size = self.batch_size = self._batch_size(claim)
        if self._frozen_at is not None:
            lent, self.not_frozen = frozen.taken(claim, buffer.size)
            if lent:
                self._keep_frozen(buffer, lent, self._frozen_at)
        began = time.monotonic()
        reader = self._readers.open(claim, buffer)
        starting_s = time.monotonic() - began  # not counted as the candidate's time
        train_deadline += starting_s
        plan = serving_order.batches(
            len(self._items), self._twins, sorted(self._again), size, self._rng
        )
        observe("serving", {"batches": len(plan)})
        seen = _Seen(np.full((len(self._items), self._length), np.nan, np.float32))
        met: set[int] = set()
        asked, unread = self._asked(met, 0, plan[0]), None
        deadline, started, own_s = train_deadline, time.monotonic(), 0.0
        shape = (size, self._length, self._vocabulary)
        for sequence in range(len(plan)):
            ask(wire, sequence, asked.tokens, shape, deadline)
            arrived = time.monotonic()
            if sequence == 0:
                started = arrived
                deadline = started + times.serve_s
            left = None if unread is None else (unread, reader.reading())
            reader.begin(asked.question)
            # While this answer is copied, finish the previous one and prepare the next request.
            if left is not None:
                self._keep(seen, *left)
            unread = asked
            if sequence + 1 < len(plan):
                asked = self._asked(met, sequence + 1, plan[sequence + 1])
            seen.bad += reader.copied()
            observe("served", {"done": sequence + 1, "batches": len(plan)})
            spent_s = time.monotonic() - arrived
            own_s += spent_s
            deadline += spent_s  # not counted as the candidate's time
            if seen.bad:
                break
        began = time.monotonic()
        if unread is not None and not seen.bad:
            self._keep(seen, unread, reader.reading())
        served = time.monotonic()
        own_s += served - began
        verdict = self._verdict(
            seen, claim, started - times.spawned - starting_s, served - started, own_s
        )
        revealed = self._tell and verdict.failed is None
        send_goodbye(wire, round(verdict.score, 6) if revealed else None, time.monotonic())
        return verdict

    def _keep_frozen(self, buffer: LogitsBuffer, size: int, place: Path) -> None:
        """Save the exported model for the processes that will serve it."""
        try:
            buffer.save(size, place)
            place.chmod(0o644)  # not left to the umask: the candidate is another user
        except OSError as error:  # the file may be as large as the buffer
            self.not_frozen = f"it could not be kept on this machine: {error}"

    def _batch_size(self, claim: dict[str, Any]) -> int:
        size = claim.get("batch_size")
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= self._max_batch:
            raise ProtocolError(
                f"a batch of {size!r} rows; evaluate_bpb takes 1 to {self._max_batch}"
            )
        return size

    def _asked(self, met: set[int], sequence: int, batch: NDArray[np.int64]) -> _Asked:
        """Return one request with its question, and add its items to ``met``."""
        items: list[int] = batch.tolist()
        new: set[int] = set()
        places: dict[int, NDArray[np.int64]] = {}
        sketched = []
        for row, item in enumerate(items):
            if item in self._again or item in self._twins:
                sketched.append(row)
            if item in met:
                continue
            met.add(item)
            new.add(row)
            if item in self._places_of:
                places[row] = self._places_of[item]
        lengths = [len(numbers) for numbers in places.values()]
        numbers = np.concatenate([np.empty(0, np.int64), *places.values()])
        question = ReadRequest(
            targets=self._items[batch, 1:],
            columns=self._columns,
            sketched=np.array(sketched, np.int64),
            picks=pairs(
                np.repeat(np.array([*places], np.int64), lengths),
                self._places.position[numbers],
                self._places.own[numbers],
                self._places.other[numbers],
            ),
        )
        tokens = self._items[batch, :-1].astype(np.int32)
        return _Asked(sequence, tokens, items, new, places, question)

    def _keep(self, seen: _Seen, asked: _Asked, reading: ReadResult) -> None:
        """Keep from one answer what the score and the audits need."""
        sketches = dict(zip(asked.question.sketched.tolist(), reading.sketch, strict=True))
        no_sketch = np.empty((self._length, 0), np.float32)
        for row, item in enumerate(asked.items):
            nats, sketch = reading.nats[row], sketches.get(row, no_sketch)
            if row in asked.new:
                seen.order.append(item)
                seen.nats[item] = nats
                seen.sketches[item] = sketch.copy()
            elif item < self._scored or item in self._twins:
                before = (seen.nats[item], seen.sketches[item])
                pair = _pair(item, asked.sequence, before, (nats, sketch), self._length)
                seen.repeats.append(pair)
        start = 0
        preferences = reading.preferences
        for row, numbers in asked.places.items():
            preference = preferences[start : start + len(numbers)]
            start += len(numbers)
            self._note_preferences(seen, asked.sequence, asked.items[row], numbers, preference)

    def _note_preferences(
        self,
        seen: _Seen,
        sequence: int,
        item: int,
        numbers: NDArray[np.int64],
        preference: NDArray[np.float64],
    ) -> None:
        """Keep preferences for the swap test, and for the twin test once both twins were asked."""
        keep = np.ones(len(numbers), bool)
        sibling = self._twins.get(item)
        if sibling is not None:
            place = self._twin_place.get(item, self._twin_place.get(sibling, -1))
            here = numbers == place
            value = float(preference[here][0])
            # +1 where this row shows the document's own continuation, -1 where it shows the other.
            stands = int(self._places.sign[place]) * (-1 if item in self._twin_place else 1)
            seen.leans.setdefault(place, {})[stands] = value
            if len(seen.leans[place]) == 2:
                at = int(self._places.position[place])
                lean = (seen.leans[place][1] - seen.leans[place][-1]) / 2
                first = (seen.nats[sibling], seen.sketches[sibling])
                second = (seen.nats[item], seen.sketches[item])
                pair = _pair(item, sequence, first, second, at)
                seen.prefixes.append(
                    TwinAnswers(pair.item, sequence, max(pair.spread, abs(lean)), pair.at, lean)
                )
                keep &= ~here
        if item in self._twin_place:
            # Twins stay out of the swap test: either the place was asked before in its own row, or
            # this twin comes first, and then what it shows is not what the place's coin chose.
            return
        seen.places.append(numbers[keep])
        seen.preferences.append(preference[keep])

    def _verdict(
        self, seen: _Seen, claim: dict[str, Any], train_s: float, serve_s: float, own_s: float
    ) -> Verdict:
        began = time.monotonic()
        finite = audits.finiteness(seen.bad)
        checks = [(finite, Reason.NOT_FINITE, f"{seen.bad:,} served logits are not finite.")]
        score, error, resolution = float("nan"), float("nan"), None
        if finite.passed:
            score, error, bytes_per_token = self._bits_per_byte(seen.nats[: self._scored])
            more, resolution = self._checks(seen, bytes_per_token)
            checks += more
        failed, message = first_failure(checks)
        return Verdict(
            score=score,
            standard_error=error,
            audits=tuple(audit for audit, _, _ in checks),
            failed=failed,
            message=message,
            claim=claim,
            train_s=train_s,
            serve_s=serve_s,
            judge_s=own_s + time.monotonic() - began,
            resolution=resolution,
        )

    def _checks(self, seen: _Seen, bytes_per_token: float) -> tuple[list[Check], float]:
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
        trend, learned = language_audits.trend(
            seen.nats[order].astype(np.float64).mean(axis=1), -self._reference[order]
        )
        resolution = max(resolution, learned / np.log(2) / bytes_per_token)
        ahead = "Logits depend on tokens that come later: "
        state = "Logits depend on more than their row: "
        cheaper = "Rows become cheaper while serving"
        # State that changes repeated answers also changes twins, so the first failure is the cause.
        return [
            (same, Reason.STATEFUL, f"{state}{moved}."),
            (gain, Reason.STATEFUL, f"{state}rows asked again cost less, {gaining}."),
            (prefix, Reason.LOOKS_AHEAD, f"{ahead}{differs}."),
            (lean, Reason.LOOKS_AHEAD, f"{ahead}{leaning}."),
            (swap, Reason.LOOKS_AHEAD, f"{ahead}{at}."),
            (trend, Reason.TREND, f"{cheaper} ({trend.value:.1f} standard deviations)."),
        ], resolution

    def halves(self) -> tuple[frozen.Half, frozen.Half]:
        """Return the two examiners of the frozen model, whose twins are drawn anew."""
        if self._check is None:
            raise AssertionError("not asked to be strict")
        return self._check.halves(self.batch_size, self._vocabulary, self._rng, self._gpu)

    def strict_verdict(self, verdict: Verdict, halves: tuple[frozen.Half, frozen.Half]) -> Verdict:
        """Return the verdict on the frozen model; the audits of ``verdict`` are kept in it."""
        if self._check is None:
            raise AssertionError("not asked to be strict")
        score, error, bytes_per_token = self._bits_per_byte(halves[0].nats[: self._scored])
        checks, nats = self._check.compare(*halves)
        failed, message = first_failure(checks)
        return replace(
            verdict,
            score=score,
            standard_error=error,
            audits=(*verdict.audits, *(audit for audit, _, _ in checks)),
            failed=failed,
            message=message,
            resolution=nats / float(np.log(2)) / bytes_per_token,
            strict=frozen.HELD,
        )

    def _bits_per_byte(self, nats: NDArray[np.float32]) -> tuple[float, float, float]:
        """Return bits-per-byte, its standard error over rows, and bytes per token that has any."""
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
) -> TwinAnswers:
    """Compare two answers, each nats and sketch, over their first ``targets`` targets.

    The columns are compared at one more position: its input tokens are still the same.
    """
    gain = before[0][:targets].astype(np.float64) - after[0][:targets]
    columns = before[1][: targets + 1] - after[1][: targets + 1]
    square = np.einsum("pk,pk->p", columns, columns).astype(np.float64)
    square[:targets] += gain**2
    spread = np.sqrt(square / (columns.shape[1] + 1))
    at = int(spread.argmax()) if len(spread) else 0
    return TwinAnswers(
        item,
        sequence,
        float(spread[at]) if len(spread) else 0.0,
        at,
        float(gain.mean()) if len(gain) else 0.0,
    )
