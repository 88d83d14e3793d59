"""What makes an accuracy believable beyond the labels being hidden.

A classifier must be a function of its row. The judge serves every row once in an order
nobody can foresee, and asks many of them again, later, in other company and other batch
sizes. All numbers here are computed by the judge on its own copies of the logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorers.score import Audit

Logits = NDArray[np.float32]

SPREAD_LIMIT = 2e-2
"""Largest honest difference between two answers to one row, relative to max(1, rms logit).

Measured on the reference designs in float32: at most 5e-7 on a CPU and 1.1e-6 on an H200
(another batch size takes another kernel). A model that rounds to bfloat16 itself errs by
2^-8 = 4e-3 a step, and a few layers add up: it is honest and must pass. A memory that stays
below the limit can change a label only where the two best classes are that close already.
"""

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


def statelessness(
    batches: Sequence[Batch], answers: Sequence[Logits], first: Logits
) -> tuple[Audit, str]:
    """A row asked again, elsewhere and in other company, gets the same logits.

    ``first`` holds the first answer to each row, float32 (rows, classes). Returns the audit
    and a sentence that lets the author reproduce the worst case.
    """
    scale = max(1.0, float(np.sqrt(np.mean(np.square(first, dtype=np.float64)))))
    worst, where, repeats = 0.0, "", 0
    for position, (batch, answer) in enumerate(zip(batches, answers, strict=True)):
        if batch.first:
            continue
        repeats += len(batch.rows)
        difference = np.abs(answer.astype(np.float64) - first[batch.rows]).max(axis=1) / scale
        at = int(difference.argmax())
        if difference[at] > worst:
            worst = float(difference[at])
            where = (
                f"row {int(batch.rows[at])} asked again in request {position} "
                f"(a batch of {len(batch.rows)}): its logits moved by {worst:.3g} of their scale"
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
