"""Compares ``pack`` with its rule written out literally, and tests edge cases of the rule."""

import itertools
import random
from collections.abc import Iterable

import pytest

from tasks.packing import Row, pack

LENGTHS = {
    "all alike": lambda rng: 7,
    "few lengths, many ties": lambda rng: rng.choice((3, 5, 8, 30)),
    "short and long": lambda rng: rng.choice((rng.randint(1, 6), rng.randint(60, 300))),
    "nothing fits": lambda rng: rng.randint(41, 90),
    "like text": lambda rng: max(1, int(rng.lognormvariate(3, 1.2))),
}


def literally(
    lengths: Iterable[int], capacity: int, buffer_size: int, refill: int
) -> list[list[tuple[int, int]]]:
    """Pack by the rule as it is stated: scan the whole buffer at every placement."""
    source = list(enumerate(lengths))
    buffer: list[tuple[int, int]] = []
    rows: list[list[tuple[int, int]]] = []
    row: list[tuple[int, int]] = []
    while True:
        while len(buffer) < buffer_size and source:
            buffer += source[:refill]
            del source[:refill]
        if not buffer:
            return rows
        left = capacity - sum(take for _, take in row)
        best = None
        for at, (_, length) in enumerate(buffer):
            if length <= left and (best is None or length > buffer[best][1]):
                best = at
        if best is None:
            best = 0
            for at, (_, length) in enumerate(buffer):
                if length < buffer[best][1]:
                    best = at
        index, length = buffer.pop(best)
        row.append((index, min(length, left)))
        if sum(take for _, take in row) == capacity:
            rows.append(row)
            row = []


@pytest.mark.parametrize("kind", LENGTHS)
def test_rows_are_those_of_the_literal_rule(kind):
    for seed in range(12):
        rng = random.Random(f"{kind} {seed}")
        lengths = [LENGTHS[kind](rng) for _ in range(rng.randint(0, 600))]
        buffer_size, refill = rng.choice(((1, 1), (10, 3), (50, 128), (100, 16)))
        capacity = rng.choice((1, 17, 40, 65))
        rows = list(pack(lengths, capacity, buffer_size=buffer_size, refill=refill))
        assert rows == literally(lengths, capacity, buffer_size, refill)


def test_rows_of_the_public_sizes_are_those_of_the_literal_rule():
    rng = random.Random(5)
    lengths = [max(2, int(rng.lognormvariate(6, 1.1))) for _ in range(3000)]
    rows = list(pack(lengths, 2049))
    assert rows == literally(lengths, 2049, 1000, 128)
    assert len(rows) > 100


def test_among_equal_lengths_the_earliest_goes_first():
    assert list(pack([4, 6, 4, 6], 10)) == [[(1, 6), (0, 4)], [(3, 6), (2, 4)]]
    assert list(pack([9, 9, 9], 5)) == [[(0, 5)], [(1, 5)], [(2, 5)]]


def test_the_shortest_is_cropped_where_none_fits():
    assert list(pack([9, 8, 12, 3], 5)) == [[(3, 3), (1, 2)], [(0, 5)], [(2, 5)]]


def test_a_document_that_has_not_been_drawn_cannot_be_chosen():
    # In the second list, document 3 (2 tokens) would fit, but is not yet in the buffer of two.
    assert list(pack([5, 7, 3, 1, 1], 10, buffer_size=2, refill=1))[0] == [(1, 7), (2, 3)]
    assert list(pack([5, 7, 9, 2, 10], 10, buffer_size=2, refill=1))[0] == [(1, 7), (0, 3)]


def test_a_last_row_that_cannot_be_filled_is_dropped():
    assert list(pack([3, 3], 10)) == []
    assert list(pack([10, 3], 10)) == [[(0, 10)]]
    assert list(pack([], 10)) == []


def test_an_endless_source_is_drawn_only_as_needed():
    drawn = itertools.count()
    rows: Iterable[Row] = pack((next(drawn) % 7 + 1 for _ in itertools.count()), 20)
    first = list(itertools.islice(rows, 50))
    assert all(sum(take for _, take in row) == 20 for row in first)
    assert next(drawn) < 1000 + 128 + 50 * 20


@pytest.mark.parametrize("sizes", [(0, 10, 10), (10, 0, 10), (10, 10, 0)])
def test_senseless_sizes_are_refused(sizes):
    capacity, buffer_size, refill = sizes
    with pytest.raises(ValueError, match="at least 1"):
        next(pack([3], capacity, buffer_size=buffer_size, refill=refill))


def test_a_document_without_tokens_is_named():
    with pytest.raises(ValueError, match="document 1 has 0 tokens"):
        next(pack([3, 0], 10))
