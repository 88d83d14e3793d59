"""Audits of a classifier: checks that make its accuracy believable, besides the hidden labels.

The prediction for a row must depend on that row alone. The judge serves every row once in an
order that nobody can predict, and asks for many of them again later, with other rows in the batch
and at other batch sizes. All numbers here are computed by the judge on its own copies of the
logits. Language models have other audits: ``language_audits``.
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
"""The answer where rounding alone would decide. No label is -1, so it counts as wrong."""

SPREAD_LIMIT = 2e-2
"""Largest honest change of a gap between two classes of a row, relative to the row's spread.

Measured on the gallery, with 2 and with 10 classes, 512 to 1,024 rows and 1,700 to 1,800 repeats
each: at most 7e-7 in float32 on a CPU, after little or full training; and 0 under bfloat16 autocast
on a CPU, whose kernels do not differ with the batch. On an H200, relative to the root mean square
of all logits, 1.1e-6 was seen in float32. A model that rounds to bfloat16 itself may err by
2^-8 = 4e-3 a step where its kernels differ with the batch, and the errors of a few layers add up.
Such a model is honest and must pass.
"""

LAST_PLACES = 2
"""A gap may move by this many units in the last place of the larger logit, whatever the spread.

When a row is asked for twice, each served float32 may be rounded to either neighbour, so a logit
moves by one unit and a gap by two. A large common bias does no more than that to honest models."""

FLIP_RATE = 1e-3
"""Share of repeats in which a model without a memory may change its answer; see ``near_ties``.

Measured on the same models: none in 72,000 repeats, float32 or bfloat16. The rate leaves room for
models with discrete choices (hashes, top-k), where rounding can change a choice, and for bfloat16
kernels of a GPU, which were not measured.
"""

FALSE_ALARM = 3e-7
"""Probability that one near-ties audit fails an honest model at FLIP_RATE; as for TREND_LIMIT."""

TREND_LIMIT = 5.0
"""Standard deviations. The judge draws the serving order, so for an honest model this is an exact
permutation test: a limit of 5 gives one false alarm in 3.5 million evaluations."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one request. ``first``: whether these rows are asked for the first time."""

    rows: NDArray[np.int64]
    first: bool


def plan(rows: int, size: int, rng: np.random.Generator) -> list[Batch]:
    """Return the serving plan: each row once, in random order, and audit batches in between.

    An audit batch holds rows that were asked before, with other rows beside them and at another
    batch size (1 to ``size``). About an eighth of the rows, at least 64 and at most 512, are asked
    again. Half of the audit batches are drawn from the older half of the rows served so far: if
    the model learns while serving, its answers to these rows have changed most.
    """
    order = rng.permutation(rows)
    batches = [Batch(order[i : i + size], first=True) for i in range(0, rows, size)]
    audits = min(rows, max(64, min(512, rows // 8)))
    planned: list[tuple[float, Batch]] = [(float(i), b) for i, b in enumerate(batches)]
    while audits > 0:
        wanted = int(rng.choice([1, 1, 2, 3, 7, size // 2, size]))
        count = max(1, min(wanted, size, audits, rows))
        # Half of the audit batches come after the last new row, half anywhere in the second half.
        last = len(batches) - 1
        place = float(last) + 1 if rng.random() < 0.5 else float(rng.uniform(last / 2, last))
        served = min(rows, (int(place) + 1) * size)
        pool = order[: max(count, served // 2)] if rng.random() < 0.5 else order[:served]
        again = rng.choice(pool, size=min(count, len(pool)), replace=False)
        planned.append((place + 0.5, Batch(again, first=False)))
        audits -= count
    # Audit batches after the last new row share one place: they keep the order of their drawing.
    return [batch for _, batch in sorted(planned, key=lambda item: item[0])]


def finiteness(bad: int) -> Audit:
    """Check that every logit is a finite number; ``bad`` counts those that are not."""
    return Audit(
        name="finiteness",
        passed=bad == 0,
        value=float(bad),
        threshold=0.0,
        power="exact: every served logit is looked at",
    )


def answers(logits: Logits) -> NDArray[np.intp]:
    """Return the predicted class of each row of ``logits`` (rows, classes), or NO_ANSWER.

    Classes whose logits equal the best one up to float32 rounding are tied. If the tied logits are
    exactly equal, the first class is the answer; if they differ by rounding only, there is no
    answer. So it takes more than rounding to change a valid answer into another valid answer,
    however coarse a large common shift makes the rounding; ``near_ties`` sees such a change.
    """
    best = logits.max(axis=1, keepdims=True)
    tied = best.astype(np.float64) - logits <= _rounding(best, logits)
    told_apart = (tied & (logits != best)).any(axis=1)
    return np.where(told_apart, NO_ANSWER, logits.argmax(axis=1))


def statelessness(
    batches: Sequence[Batch], served: Sequence[Logits], first: Logits
) -> tuple[Audit, str]:
    """Check that a row asked again, later and with other rows in the batch, gets the same logits.

    It compares the gaps between a row's best class and the others, on which the accuracy depends.
    The change of a gap is divided by the gap, or by the row's spread (its median gap) if that is
    larger. A row with almost no spread counts with the median spread of all rows, because the model
    rounds no less in it than in those. So neither a shift nor a scale, of all rows or of one, hides
    a change. ``first`` holds the first answer to each row, float32 (rows, classes). Returns the
    audit and a sentence that lets the author reproduce the worst case.
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
    """Check that a row asked again gets the same answer, except for near-ties flipped by rounding.

    A change below SPREAD_LIMIT, or one hidden by a large spread among classes that the model never
    predicts, can still choose between classes that are close. This audit counts changed answers
    only, so the scale of the logits does not matter. A change within LAST_PLACES does not count:
    classes so close together give no valid answer (see ``answers``).
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
    """Return how many of ``repeats`` may flip: an honest model exceeds it with P <= FALSE_ALARM."""
    mean = repeats * FLIP_RATE
    term = beyond = math.exp(-mean)
    count = 0
    while 1 - beyond > FALSE_ALARM:
        count += 1
        term *= mean / count
        beyond += term
    return count


def _seen_share(repeats: int, limit: int) -> float:
    """Return the flip rate at which ``limit`` or fewer flips in ``repeats`` have 5 % probability.

    Uses the normal approximation with continuity correction; a little above the exact rate.
    """
    z, x = 1.645, limit + 0.5
    return min(1.0, (x + z * z / 2 + z * math.sqrt(x + z * z / 4)) / max(1, repeats))


def _rounding(one: Logits, other: Logits) -> NDArray[np.float64]:
    """Return how far float32 rounding alone can move the gap between two logits, elementwise."""
    larger = np.maximum(np.abs(one), np.abs(other))
    return LAST_PLACES * np.spacing(larger).astype(np.float64)


def _gaps(logits: Logits, best: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return how far each class lies below the one numbered ``best`` (rows, 1)."""
    doubles = logits.astype(np.float64)
    return np.take_along_axis(doubles, best, 1) - doubles


def _spread(logits: Logits) -> NDArray[np.float64]:
    """Return how far the middle of the other classes lies below the best one, for each row.

    It uses the median class, so that a few classes with very low logits cannot feign a spread.
    """
    ordered = np.sort(logits.astype(np.float64), axis=1)
    spread: NDArray[np.float64] = ordered[:, -1] - np.median(ordered[:, :-1], axis=1)
    return spread


def trend(correct_in_order: NDArray[np.bool_]) -> Audit:
    """Check that accuracy does not grow while rows are served (it grows if the model learns)."""
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
    """Return how far ``values`` rise with ``order``, in standard deviations over permutations."""
    left, at = values - values.mean(), order - order.mean()
    spread = float(np.sqrt((left**2).sum() * (at**2).sum() / max(1, len(values) - 1)))
    return float((left * at).sum()) / spread if spread > 0 else 0.0
