"""What makes an accuracy believable beyond the labels being hidden.

A classifier must be a function of its row. The judge serves every row once in an order
nobody can foresee, and asks many of them again, later, in other company and other batch
sizes. All numbers here are computed by the judge on its own copies of the logits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorers.score import Audit

Logits = NDArray[np.float32]

NO_ANSWER = -1
"""What rounding alone would decide. No label is -1, so it counts as wrong."""

SPREAD_LIMIT = 2e-2
"""Largest honest change of a gap between two classes of a row, relative to the row's spread.

Measured on the gallery, with 2 and with 10 classes, 512 to 1,024 rows and 1,700 to 1,800 repeats
each: at most 7e-7 in float32 on a CPU, barely trained or well; and 0 under bfloat16 autocast there,
whose kernels do not differ with the batch. On an H200, relative to the root mean square of all
logits, 1.1e-6 was seen in float32. A model that rounds to bfloat16 itself may err by 2^-8 = 4e-3 a
step where its kernels do, and a few layers add up: it is honest and must pass.
"""

LAST_PLACES = 2
"""Units in the last place of the larger logit that a gap may move by, whatever the spread.

Two askings of one row may round each served float32 to either neighbour, so a logit moves by one
unit and a gap by two. That is all a large common bias does to an honest model."""

FLIP_RATE = 1e-3
"""Share of repeats that may get another answer without a memory; see ``near_ties``.

Measured on the same: none in 72,000 repeats, float32 or bfloat16. The rate leaves room for models
that choose (hashes, the k best), where rounding can turn a choice over, and for kernels of a GPU
in bfloat16, which were not measured.
"""

FALSE_ALARM = 3e-7
"""Of an honest model at FLIP_RATE, by one audit; that of the trend's limit."""

TREND_LIMIT = 5.0
"""Standard deviations. The serving order is the judge's own, so that for an honest model this
is an exact permutation test: 5 is one false alarm in 3.5 million evaluations."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to ask for in one go. ``first``: these rows have not been asked before."""

    rows: NDArray[np.int64]
    first: bool


def plan(rows: int, size: int, rng: np.random.Generator) -> list[Batch]:
    """Return the serving plan: each row once, in random order, and audit batches between.

    An audit batch holds rows asked before, in new company, at another batch size (1 to
    ``size``). About an eighth of the rows, at least 64 and at most 512, are asked again; the
    oldest half of what has been served is preferred, because that is where a memory that
    learns while serving has changed most.
    """
    order = rng.permutation(rows)
    batches = [Batch(order[i : i + size], first=True) for i in range(0, rows, size)]
    audits = min(rows, max(64, min(512, rows // 8)))
    planned: list[tuple[float, Batch]] = [(float(i), b) for i, b in enumerate(batches)]
    while audits > 0:
        wanted = int(rng.choice([1, 1, 2, 3, 7, size // 2, size]))
        count = max(1, min(wanted, size, audits, rows))
        # Half of the audits come after the last new row, half anywhere in the second half.
        last = len(batches) - 1
        place = float(last) + 1 if rng.random() < 0.5 else float(rng.uniform(last / 2, last))
        served = min(rows, (int(place) + 1) * size)
        pool = order[: max(count, served // 2)] if rng.random() < 0.5 else order[:served]
        again = rng.choice(pool, size=min(count, len(pool)), replace=False)
        planned.append((place + 0.5, Batch(again, first=False)))
        audits -= count
    # Ties after the last batch are broken at random by the position they were drawn in.
    return [batch for _, batch in sorted(planned, key=lambda item: item[0])]


def finiteness(bad: int) -> Audit:
    """Every logit is a finite number; ``bad`` counts those that are not."""
    return Audit(
        name="finiteness",
        passed=bad == 0,
        value=float(bad),
        threshold=0.0,
        power="exact: every served logit is looked at",
    )


def answers(logits: Logits) -> NDArray[np.intp]:
    """Return the class each row (rows, classes) is answered with, or NO_ANSWER.

    Classes as good as the best up to float32 rounding are one tie. Where all of them are exactly
    equal it is the first of them; where only rounding tells them apart there is no answer. So an
    answer that counts can turn into another one that counts only by more than rounding, however
    large a common shift makes that, and such a change ``near_ties`` sees.
    """
    best = logits.max(axis=1, keepdims=True)
    tied = best.astype(np.float64) - logits <= _rounding(best, logits)
    told_apart = (tied & (logits != best)).any(axis=1)
    return np.where(told_apart, NO_ANSWER, logits.argmax(axis=1))


def statelessness(
    batches: Sequence[Batch], served: Sequence[Logits], first: Logits
) -> tuple[Audit, str]:
    """A row asked again, elsewhere and in other company, gets the same logits.

    Compared is what an accuracy depends on: the gaps of a row's best class to the others, each as
    a part of itself or of the row's spread, if that is larger (the middle gap; of a row that has
    next to none, the middle spread of all rows, for its model rounds no less than in those). So
    neither a shift nor a scale, of all rows or of one, hides anything from it. ``first`` holds the
    first answer to each row, float32 (rows, classes). Returns the audit and a sentence that lets
    the author reproduce the worst case.
    """
    spread = _spread(first)
    spread = np.maximum(spread, np.median(spread))
    worst, where, repeats = 0.0, "", 0
    for position, (batch, answer) in enumerate(zip(batches, served, strict=True)):
        if batch.first:
            continue
        repeats += len(batch.rows)
        before = first[batch.rows]
        best = before.argmax(axis=1)[:, None]
        gaps, noise = _gaps(before, best), _rounding(np.take_along_axis(before, best, 1), before)
        scale = np.maximum(np.maximum(spread[batch.rows, None], gaps), noise / SPREAD_LIMIT)
        moved = (np.abs(_gaps(answer, best) - gaps) / scale).max(axis=1)
        at = int(moved.argmax())
        if moved[at] > worst:
            worst = float(moved[at])
            where = (
                f"row {int(batch.rows[at])} asked again in request {position} (a batch of "
                f"{len(batch.rows)}): its classes moved by {worst:.3g} of what keeps them apart"
            )
    share = 1 - 0.01 ** (1 / max(1, repeats))
    audit = Audit(
        name="statelessness",
        passed=worst <= SPREAD_LIMIT,
        value=worst,
        threshold=SPREAD_LIMIT,
        power=(
            f"{repeats} repeats: a memory or a look at the batch that moves {share:.1%} "
            "of the rows is seen with 99 % probability"
        ),
    )
    return audit, where


def near_ties(
    batches: Sequence[Batch], served: Sequence[Logits], first: Logits
) -> tuple[Audit, str]:
    """A row asked again gets the same answer, but for as many near-ties as rounding turns over.

    What hides below SPREAD_LIMIT, or in a row whose spread is made of classes it never means,
    can still choose between classes that are close. This counts answers alone and so has no scale.
    A change within LAST_PLACES does not count: what it turns over is no answer (``answers``).
    """
    flips, where, repeats = 0, "", 0
    for position, (batch, answer) in enumerate(zip(batches, served, strict=True)):
        if batch.first:
            continue
        repeats += len(batch.rows)
        turned, noise = np.zeros(len(batch.rows)), np.full(len(batch.rows), np.inf)
        one, two = first[batch.rows].argmax(axis=1)[:, None], answer.argmax(axis=1)[:, None]
        for logits, winner, loser in ((first[batch.rows], one, two), (answer, two, one)):
            won, lost = (np.take_along_axis(logits, which, 1)[:, 0] for which in (winner, loser))
            turned += won.astype(np.float64) - lost
            noise = np.minimum(noise, _rounding(won, lost))
        flipped = turned > noise
        flips += int(flipped.sum())
        if flipped.any():
            where = (
                f"{flips} of {repeats} repeats got another answer, the last of them row "
                f"{int(batch.rows[flipped][0])} in request {position} (a batch of "
                f"{len(batch.rows)})"
            )
    limit = most_flips(repeats)
    audit = Audit(
        name="near-ties",
        passed=flips <= limit,
        value=float(flips),
        threshold=float(limit),
        power=(
            f"{repeats} repeats: a memory that turns over {_seen_share(repeats, limit):.1%} of "
            "the answers is seen with 95 % probability, and can gain no more unseen"
        ),
    )
    return audit, where


def most_flips(repeats: int) -> int:
    """Return how many of so many repeats may flip: more has FALSE_ALARM probability if honest."""
    mean = repeats * FLIP_RATE
    term = beyond = math.exp(-mean)
    count = 0
    while 1 - beyond > FALSE_ALARM:
        count += 1
        term *= mean / count
        beyond += term
    return count


def _seen_share(repeats: int, limit: int) -> float:
    """Return the share of flips for which ``limit`` or fewer in ``repeats`` have 5 % probability.

    By the normal approximation with continuity, a little above the exact share.
    """
    z, x = 1.645, limit + 0.5
    return min(1.0, (x + z * z / 2 + z * math.sqrt(x + z * z / 4)) / max(1, repeats))


def _rounding(one: Logits, other: Logits) -> NDArray[np.float64]:
    """Return how far float32 alone moves the gaps between two."""
    larger = np.maximum(np.abs(one), np.abs(other))
    return LAST_PLACES * np.spacing(larger).astype(np.float64)


def _gaps(logits: Logits, best: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return how far each class lies below the one numbered ``best`` (rows, 1)."""
    doubles = logits.astype(np.float64)
    return np.take_along_axis(doubles, best, 1) - doubles


def _spread(logits: Logits) -> NDArray[np.float64]:
    """Return how far the middle of the other classes lies below the best one, for each row.

    The middle one, so that a few classes made impossible do not pass for a spread.
    """
    ordered = np.sort(logits.astype(np.float64), axis=1)
    spread: NDArray[np.float64] = ordered[:, -1] - np.median(ordered[:, :-1], axis=1)
    return spread


def trend(correct_in_order: NDArray[np.bool_]) -> Audit:
    """Accuracy does not grow with the serving position (learning while serving would)."""
    n = len(correct_in_order)
    z = rise(correct_in_order.astype(np.float64), np.arange(n))
    # A straight rise from p-d to p+d gives z = d·sqrt(n/3)/sqrt(p(1-p)); at p = 1/2:
    seen = TREND_LIMIT * 0.5 / np.sqrt(max(1, n) / 3)
    return Audit(
        name="trend",
        passed=z <= TREND_LIMIT,
        value=z,
        threshold=TREND_LIMIT,
        power=f"{n} rows: a steady rise of about {2 * seen:.0%} from first to last is seen",
    )


def rise(values: NDArray[np.float64], order: NDArray[Any]) -> float:
    """Return how far ``values`` rise along ``order``, in standard deviations of a permutation."""
    left, at = values - values.mean(), order - order.mean()
    spread = float(np.sqrt((left**2).sum() * (at**2).sum() / max(1, len(values) - 1)))
    return float((left * at).sum()) / spread if spread > 0 else 0.0
