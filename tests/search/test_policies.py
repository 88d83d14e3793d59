"""Policies on hand-worked trees: what is chosen, and why."""

from collections import Counter
from random import Random

import pytest

from harness.errors import ConfigError
from harness.policies import make_policy
from harness.search.tree import Node, Tree


def tree(*nodes: tuple) -> Tree:
    """Build a tree of (operator, parent or None, score or None for buggy, "…" for running)."""
    built = Tree()
    for number, (operator, parent, score) in enumerate(nodes):
        state = "written" if score == "…" else "scored"
        value = score if isinstance(score, float) else None
        parents = () if parent is None else (parent,)
        built.add(
            Node(number, operator, parents, state=state, valid=value is not None, score=value)
        )
    return built


def test_one_shot_drafts_once_and_stops():
    policy = make_policy("one_shot", [])
    assert policy.choose(tree(), Random(0)).operator == "draft"
    assert policy.choose(tree(("draft", None, None)), Random(0)) is None


def test_greedy_drafts_first_counting_running_and_broken_drafts():
    policy = make_policy("greedy", ["greedy.num_drafts=3"])
    two = tree(("draft", None, None), ("draft", None, "…"))
    assert policy.choose(two, Random(0)).operator == "draft"
    three = tree(("draft", None, 0.5), ("draft", None, "…"), ("draft", None, 0.4))
    chosen = policy.choose(three, Random(0))
    assert (chosen.operator, chosen.parents) == ("improve", (0,))


def test_greedy_repairs_every_broken_leaf_before_it_improves():
    policy = make_policy("greedy", ["greedy.num_drafts=2"])
    grown = tree(("draft", None, 0.5), ("draft", None, None))
    assert policy.choose(grown, Random(0)).parents == (1,)
    # Node 1 is no leaf any more; its child is broken too and is the one to repair.
    grown.add(Node(2, "debug", (1,), state="scored"))
    assert policy.choose(grown, Random(0)).parents == (2,)
    # While a child of it is still running, node 2 is not repaired a second time.
    grown.add(Node(3, "debug", (2,), state="written"))
    assert policy.choose(grown, Random(0)).operator == "improve"


def test_greedy_debug_chains_are_at_most_as_long_as_the_parameter():
    policy = make_policy("greedy", ["greedy.num_drafts=1", "greedy.max_debug_depth=2"])
    grown = tree(("draft", None, None))
    longest = 0
    for number in range(1, 8):
        chosen = policy.choose(grown, Random(number))
        grown.add(Node(number, chosen.operator, chosen.parents, state="scored"))
        longest = max(longest, grown.debug_depth(number))
    assert longest == 2
    # Nothing is good and nothing may be repaired: it drafts anew instead of giving up.
    assert [n.operator for n in grown][:4] == ["draft", "debug", "debug", "draft"]


def test_greedy_debug_probability_is_a_probability():
    policy = make_policy("greedy", ["greedy.num_drafts=2", "greedy.debug_prob=0.25"])
    grown = tree(("draft", None, 0.5), ("draft", None, None))
    drawn = Counter(policy.choose(grown, Random(seed)).operator for seed in range(2000))
    assert 420 < drawn["debug"] < 580


def test_greedy_picks_among_broken_leaves_uniformly():
    policy = make_policy("greedy", ["greedy.num_drafts=3"])
    grown = tree(*[("draft", None, None)] * 3)
    drawn = Counter(policy.choose(grown, Random(seed)).parents[0] for seed in range(3000))
    assert set(drawn) == {0, 1, 2}
    assert min(drawn.values()) > 850


def test_best_is_the_earlier_node_on_a_tie_and_obeys_the_direction():
    nodes = [("draft", None, 0.5), ("draft", None, 0.7), ("draft", None, 0.7)]
    assert tree(*nodes).best().number == 1
    lower = Tree(maximize=False)
    for node in tree(*nodes):
        lower.add(node)
    assert lower.best().number == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["greedy.num_draft=3"], "num_drafts"),
        (["greedy.num_drafts=many"], "not an integer"),
        (["greedy.num_drafts"], "not of the form"),
        (["one_shot.num_drafts=3"], "the policy is 'greedy'"),
        (["greedy.debug_prob=2"], "between 0 and 1"),
    ],
)
def test_wrong_settings_name_what_is_wrong(settings, words):
    with pytest.raises(ConfigError, match=words):
        make_policy("greedy", settings)
