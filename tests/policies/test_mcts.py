"""mcts on trees worked out by hand. The comments hold the numbers of that calculation."""

from random import Random

import pytest
from trees import tree

from harness.core.policy import Decision
from harness.core.tree import Node
from harness.policies import make_policy


def mcts(**parameters):
    return make_policy("mcts", [f"mcts.{k}={v}" for k, v in parameters.items()])


def choose(policy, grown):
    return policy.choose(grown, Random(0))


def test_it_drafts_then_repairs_each_in_place_then_improves_the_best():
    policy = mcts(num_children=2)
    assert choose(policy, tree()) == Decision("draft")
    grown = tree(("draft", None, None))
    assert choose(policy, grown) == Decision("debug", (0,))  # before the second draft
    grown.add(Node(1, "debug", (0,), state="scored", valid=True, score=0.2))
    assert choose(policy, grown) == Decision("draft")
    grown.add(Node(2, "draft", (), state="scored", valid=True, score=0.6))
    # Nodes 1 and 2 are worth 0 and 1, with one visit each: 0 + c sqrt(ln 2) < 1 + c sqrt(ln 2).
    assert choose(policy, grown) == Decision("improve", (2,))


GROWN = (
    ("draft", None, 0.2),
    ("draft", None, 0.6),
    ("improve", 1, 0.4),
    ("improve", 1, None),
    ("debug", 3, 0.3),
)
"""Normalised from 0.2 to 0.6, nodes 0, 1, 2 are worth 0, 1, 1/2; node 4, a repair of 3, 1/4.

The root has 4 visits. With value Q and visits N, node 0 has Q 0, N 1; node 1, with all nodes below
it, has Q (1 + 1/2 + 1/4) / 3 = 0.5833, N 3.
    node 0: 0      + c sqrt(ln 4 / 1) =          1.1774 c
    node 1: 0.5833 + c sqrt(ln 4 / 3) = 0.5833 + 0.6798 c       larger while c < 1.172
Below node 1, which has 3 visits, at c = 0.25:
    node 2: 0.50 + 0.25 sqrt(ln 3 / 1) = 0.50 + 0.262           larger
    idea 3: 0.25 + 0.25 sqrt(ln 3 / 1) = 0.25 + 0.262           its last node is 4
"""


@pytest.mark.parametrize(("uct_c", "parent"), [(0.25, 2), (1.17, 2), (1.18, 0)])
def test_it_descends_by_value_and_visits(uct_c, parent):
    assert choose(mcts(num_children=2, uct_c=uct_c), tree(*GROWN)) == Decision("improve", (parent,))


def test_an_idea_that_was_repaired_is_improved_at_its_repaired_end():
    grown = tree(*GROWN, ("improve", 2, 0.2), ("improve", 2, 0.2))
    # Node 2 is now (1/2 + 0 + 0) / 3 = 0.167 in 3 of 5 visits: 0.167 + 0.25 sqrt(ln 5 / 3) = 0.350;
    # idea 3: 0.25 + 0.25 sqrt(ln 5) = 0.567. UCT still leads to node 1:
    # 0.35 + 0.25 sqrt(ln 6 / 5) = 0.500, against 0.25 sqrt(ln 6) = 0.335 for node 0.
    assert choose(mcts(num_children=2), grown) == Decision("improve", (4,))


def test_an_expansion_that_was_begun_is_finished_even_if_uct_would_now_leave():
    grown = tree(("draft", None, 0.5), ("draft", None, 0.6), ("improve", 1, 0.0))
    # UCT alone prefers node 0: 0.833 + 0.262, against (1 + 0) / 2 + 0.185 for node 1.
    assert choose(mcts(num_children=2), grown) == Decision("improve", (1,))


def test_where_lower_is_better_the_same_tree_mirrored_gives_the_same_choice():
    mirrored = [(o, p, None if s is None else -s) for o, p, s in GROWN]
    for uct_c, parent in ((0.25, 2), (1.18, 0)):
        policy = mcts(num_children=2, uct_c=uct_c)
        assert choose(policy, tree(*mirrored, maximize=False)) == Decision("improve", (parent,))


def test_a_constant_on_all_scores_and_another_unit_change_nothing():
    """Scores are normalised to 0…1 before the exploration term, which c weighs, is added."""
    moved = [(o, p, None if s is None else 1000 + 64 * s) for o, p, s in GROWN]
    for uct_c, parent in ((1.17, 2), (1.18, 0)):
        policy = mcts(num_children=2, uct_c=uct_c)
        assert choose(policy, tree(*moved)) == Decision("improve", (parent,))


def test_equal_scores_are_worth_a_half_and_the_oldest_is_taken():
    grown = tree(("draft", None, 0.5), ("draft", None, 0.5))
    assert choose(mcts(num_children=2), grown) == Decision("improve", (0,))


def test_what_stayed_broken_is_never_descended_into():
    policy = mcts(num_children=2, max_debug_depth=1)
    dead = (("draft", None, None), ("debug", 0, None))
    assert choose(policy, tree(*dead, ("draft", None, 0.1))) == Decision("improve", (2,))
    # All drafts stayed broken: mcts drafts again; textbook UCT would improve a broken program.
    assert choose(policy, tree(*dead, *[("draft", None, None), ("debug", 2, None)])) == Decision(
        "draft"
    )


def test_an_idea_whose_children_all_died_is_left_for_its_neighbour():
    policy = mcts(num_children=2, max_debug_depth=0)
    grown = tree(
        ("draft", None, 0.9), ("draft", None, 0.1), ("improve", 0, None), ("improve", 0, None)
    )
    assert choose(policy, grown) == Decision("improve", (1,))
    grown.add(Node(4, "improve", (1,), state="scored"))
    grown.add(Node(5, "improve", (1,), state="written"))
    assert choose(policy, grown) is None  # node 5 may still become valid
    grown.update(5, state="scored")
    assert choose(policy, grown) == Decision("draft")


def test_running_nodes_count_as_visits_and_have_no_value():
    equal = [
        ("draft", None, 0.5), ("draft", None, 0.5), ("improve", 0, 0.5), ("improve", 0, 0.5),
        ("improve", 1, 0.5), ("improve", 1, 0.5),
    ]  # fmt: skip
    policy = mcts(num_children=2)
    # All are worth 0.5 and both drafts have 3 visits: the oldest is taken at each level.
    assert choose(policy, tree(*equal)) == Decision("improve", (2,))
    # With two more nodes running below it, node 0 has 5 visits of 8, and UCT prefers node 1:
    #   0.5 + 0.25 sqrt(ln 8 / 5) = 0.661 against 0.5 + 0.25 sqrt(ln 8 / 3) = 0.708.
    running = tree(*equal, ("improve", 2, "…"), ("improve", 2, "…"))
    assert choose(policy, running) == Decision("improve", (4,))


def test_more_slots_than_drafts_wait():
    policy = mcts(num_children=3)
    grown = tree(*[("draft", None, "…")] * 3)
    assert choose(policy, grown) is None
    # Node 1 is broken: only it is repaired, and only once.
    grown.update(1, state="scored")
    assert choose(policy, grown) == Decision("debug", (1,))
    grown.add(Node(3, "debug", (1,)))
    assert choose(policy, grown) is None
