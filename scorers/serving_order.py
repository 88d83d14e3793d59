"""The order in which a language model is served its rows; the order reveals nothing about them.

Scored rows, audited rows and their twins come in one random sequence, in batches of one fixed
size (another size would make a compiled candidate compile again). Some rows come a second time,
late. If there are enough rows, none shares a batch with its repeat or its twin, where a model that
looks across the batch would see the answer. ``audits.plan`` makes the order for classifiers.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def batches(
    items: int,
    twins: Mapping[int, int],
    repeats: Sequence[int],
    size: int,
    rng: np.random.Generator,
) -> list[Ints]:
    """Return batches of exactly ``size`` item numbers that hold every item at least once.

    ``twins`` maps items to their twins, both ways. The items in ``repeats`` come again, after their
    first time and in the later half of the sequence. Batches at the end that cannot be filled
    otherwise are filled with further repeats.
    """
    place = np.empty(items)
    place[rng.permutation(items)] = np.arange(items)
    again = [(float(rng.uniform(max(place[i] + 1, items / 2), items + 1)), i) for i in repeats]
    queue = deque(i for _, i in sorted([*((float(p), i) for i, p in enumerate(place)), *again]))
    done: list[Ints] = []
    while queue:
        batch: list[int] = []
        later: list[int] = []
        while queue and len(batch) < size:
            item = queue.popleft()
            fits = item not in batch and twins.get(item) not in batch
            (batch if fits else later).append(item)
        queue.extendleft(reversed(later))
        done.append(np.array(_filled(batch, items, twins, size, rng)))
    return done


def _filled(
    batch: list[int], items: int, twins: Mapping[int, int], size: int, rng: np.random.Generator
) -> list[int]:
    """Fill a batch with items that are neither in it nor twins of it; if too few, with any."""
    if len(batch) == size:
        return batch
    taken = {*batch, *(twins[i] for i in batch if i in twins)}
    rest: list[int] = []
    for item in rng.permutation(items):
        if len(batch) + len(rest) == size:
            break
        if int(item) not in taken:
            rest.append(int(item))
            taken |= {int(item), twins.get(int(item), int(item))}
    missing = size - len(batch) - len(rest)
    return [*batch, *rest, *(int(i) for i in rng.integers(0, items, missing))]
