"""evolve on trees worked out by hand, and its draws against the published formulas."""

from collections import Counter
from math import exp, sqrt
from random import Random

import pytest
from trees import tree

from harness.core.policy import Decision
from harness.core.tree import Node
from harness.policies import make_policy

DRAWS = 8_000


def evolve(**parameters):
    return make_policy("evolve", [f"evolve.{k}={v}" for k, v in parameters.items()])


def close(count: int, probability: float) -> bool:
    """Return whether a count in DRAWS is within 4.5 standard deviations (1 in 150,000 is not)."""
    return abs(count / DRAWS - probability) < 4.5 * sqrt(probability * (1 - probability) / DRAWS)


def draws(policy, grown, times=DRAWS) -> Counter:
    return Counter(policy.choose(grown, Random(seed)).parents for seed in range(times))


THREE = tree(("draft", None, 0.3), ("draft", None, 0.9), ("draft", None, 0.6))


def test_rank_selection_follows_its_formula():
    """At T = 0.2 ranks weigh (3 - rank + 1)^5 = 243, 32, 1 of 276, whatever the scores are."""
    drawn = draws(evolve(num_drafts=3, crossover_prob=0), THREE)
    assert close(drawn[(1,)], 243 / 276)
    assert close(drawn[(2,)], 32 / 276)
    assert close(drawn[(0,)], 1 / 276)


def test_fitness_selection_follows_its_formula():
    """The normalised scores are 0, 1 and 1/2; a softmax at T = 0.5 weighs them e^0, e^2, e^1."""
    drawn = draws(
        evolve(num_drafts=3, crossover_prob=0, selection="fitness", temperature=0.5), THREE
    )
    total = 1 + exp(2) + exp(1)
    assert close(drawn[(1,)], exp(2) / total)
    assert close(drawn[(2,)], exp(1) / total)
    assert close(drawn[(0,)], 1 / total)


def test_fitness_selection_obeys_the_direction():
    lower = tree(("draft", None, 0.3), ("draft", None, 0.9), ("draft", None, 0.6), maximize=False)
    drawn = draws(evolve(num_drafts=3, crossover_prob=0, selection="fitness"), lower, 500)
    assert drawn.most_common(1)[0][0] == (0,)


def test_crossover_draws_two_without_replacement_at_its_rate():
    """At T = 1 ranks weigh 3, 2, 1. Rank 1, then 2: 3/6 * 2/3; rank 2, then 1: 2/6 * 3/4; …"""
    drawn = draws(evolve(num_drafts=3, temperature=1, crossover_prob=0.4), THREE)
    pairs = {parents: count for parents, count in drawn.items() if len(parents) == 2}
    assert close(sum(pairs.values()), 0.4)
    assert close(pairs[1, 2], 0.4 * 3 / 6 * 2 / 3)
    assert close(pairs[1, 0], 0.4 * 3 / 6 * 1 / 3)
    assert close(pairs[2, 1], 0.4 * 2 / 6 * 3 / 4)
    assert close(pairs[2, 0], 0.4 * 2 / 6 * 1 / 4)
    assert close(pairs[0, 1], 0.4 * 1 / 6 * 3 / 5)
    assert close(pairs[0, 2], 0.4 * 1 / 6 * 2 / 5)


def test_only_valid_nodes_enter_and_only_the_best_stay():
    grown = tree(
        ("draft", None, 0.5),
        ("draft", None, None),
        ("draft", None, "…"),
        ("draft", None, 0.7),
        ("draft", None, 0.6),
    )
    hot = {"max_debug_depth": 0, "temperature": 1000, "crossover_prob": 0}
    assert set(draws(evolve(**hot), grown, 500)) == {(0,), (3,), (4,)}
    assert set(draws(evolve(**hot, population=2), grown, 500)) == {(3,), (4,)}
    assert set(draws(evolve(**hot, population=1), grown, 500)) == {(3,)}
    # A population of one allows no crossover, even at probability 1.
    alone = evolve(max_debug_depth=0, crossover_prob=1, population=1)
    assert alone.choose(grown, Random(0)) == Decision("improve", (3,))


def test_broken_children_are_repaired_first_and_the_empty_population_is_drafted():
    policy = evolve(num_drafts=2, max_debug_depth=1)
    grown = tree(("draft", None, None))
    assert policy.choose(grown, Random(0)) == Decision("debug", (0,))
    grown.add(Node(1, "debug", (0,)))
    assert policy.choose(grown, Random(0)) == Decision("draft")
    grown.add(Node(2, "draft", ()))
    assert policy.choose(grown, Random(0)) is None  # both may still become valid
    grown.update(1, state="scored")
    grown.update(2, state="scored")
    assert policy.choose(grown, Random(0)) == Decision("debug", (2,))
    grown.add(Node(3, "debug", (2,), state="scored"))
    assert policy.choose(grown, Random(0)) == Decision("draft")


def test_a_generation_has_only_older_parents_and_waits_for_the_one_before_it():
    policy = evolve(num_drafts=2, generation_size=2, temperature=0.01, crossover_prob=0)
    grown = tree(("draft", None, 0.5), ("draft", None, "…"))
    assert policy.choose(grown, Random(0)) is None
    grown.update(1, state="scored", valid=True, score=0.4)
    assert policy.choose(grown, Random(0)) == Decision("improve", (0,))
    grown.add(Node(2, "improve", (0,), state="scored"))
    # A broken node is repaired within its generation; the repair does not count as an idea.
    assert policy.choose(grown, Random(0)) == Decision("debug", (2,))
    grown.add(Node(3, "debug", (2,), state="scored", valid=True, score=0.9))
    # Node 3 is the best by far (T = 0.01 always draws it), but it belongs to this generation.
    assert policy.choose(grown, Random(0)) == Decision("improve", (0,))
    grown.add(Node(4, "improve", (0,), state="written"))
    assert policy.choose(grown, Random(0)) is None
    grown.update(4, state="scored", valid=True, score=0.1)
    assert policy.choose(grown, Random(0)) == Decision("improve", (3,))
    # Without generations, node 3 is taken at once.
    steady = evolve(num_drafts=2, temperature=0.01, crossover_prob=0)
    early = tree(*[("draft", None, 0.5)] * 2, ("improve", 0, None), ("debug", 2, 0.9))
    assert steady.choose(early, Random(0)) == Decision("improve", (3,))


@pytest.mark.parametrize("selection", ["rank", "fitness"])
def test_extreme_temperatures_neither_overflow_nor_divide_by_nothing(selection):
    grown = tree(*[("draft", None, float(n)) for n in range(600)])
    for temperature in (0.01, 1e6):
        policy = evolve(selection=selection, temperature=temperature, crossover_prob=1)
        first, second = policy.choose(grown, Random(1)).parents
        assert first != second
