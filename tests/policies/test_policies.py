"""one_shot and greedy on small trees, settings, and a tree on which all four policies differ."""

from collections import Counter
from random import Random

import pytest
from trees import tree

from harness.base.errors import ConfigError
from harness.core.policy import Decision
from harness.core.tree import Node, Tree
from harness.policies import POLICIES, make_policy


def test_four_policies_choose_differently_on_one_tree():
    """All parameters are defaults; the tree has five drafts, and five improvements of the best."""
    grown = tree(
        ("draft", None, 0.50), ("draft", None, 0.52), ("draft", None, 0.60),
        ("draft", None, 0.48), ("draft", None, 0.40),
        ("improve", 2, 0.70), ("improve", 2, 0.42), ("improve", 2, 0.41),
        ("improve", 2, 0.40), ("improve", 2, 0.40),
    )  # fmt: skip
    # one_shot has drafted and stops. greedy improves the best, node 5.
    # mcts: scores range from 0.40 to 0.70, so node 1 is worth 0.4, node 2 is 2/3, and node 2 with
    # all below it (2/3 + 1 + 1/15 + 1/30) / 6 = 0.294 in 6 of 10 visits. c = 0.25, ln 10 = 2.303:
    #   node 2: 0.294 + 0.25 sqrt(2.303 / 6) = 0.449
    #   node 1: 0.4   + 0.25 sqrt(2.303 / 1) = 0.779    <- the largest; node 0: 0.713
    # evolve: the probability of rank 1, node 5, is 10^5 / (1^5 + … + 10^5) = 0.453; without node 5,
    # that of node 2 is 9^5 / (1^5 + … + 9^5) = 0.489. Random(4) gives 0.236, which draws node 5,
    # 0.103 < 0.15, which means crossover, and 0.396, which draws node 2.
    chosen = {name: make_policy(name, []).choose(grown, Random(4)) for name in POLICIES.ours}
    assert chosen == {
        "one_shot": None,
        "greedy": Decision("improve", (5,)),
        "mcts": Decision("improve", (1,)),
        "evolve": Decision("crossover", (5, 2)),
    }


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
    # Node 1 is no longer a leaf; its child is broken too, and is repaired instead.
    grown.add(Node(2, "debug", (1,), state="scored"))
    assert policy.choose(grown, Random(0)).parents == (2,)
    # While its child is running, node 2 is not repaired a second time.
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
    # No node is valid and none may be repaired: greedy drafts again instead of giving up.
    assert [n.operator for n in grown][:4] == ["draft", "debug", "debug", "draft"]


def test_greedy_waits_for_what_runs_rather_than_draft_one_more():
    policy = make_policy("greedy", ["greedy.num_drafts=2", "greedy.max_debug_depth=1"])
    grown = tree(("draft", None, None), ("draft", None, "…"))
    assert policy.choose(grown, Random(0)) == Decision("debug", (0,))
    grown.add(Node(2, "debug", (0,)))
    assert policy.choose(grown, Random(0)) is None
    for number in (1, 2):
        grown.update(number, state="scored")
    grown.add(Node(3, "debug", (1,), state="scored"))
    # All nodes are broken, none may be repaired, and none is running.
    assert policy.choose(grown, Random(0)) == Decision("draft")


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
    ("policy", "setting", "words"),
    [
        ("greedy", "greedy.num_draft=3", "num_drafts"),
        ("greedy", "greedy.num_drafts=many", "not an integer"),
        ("greedy", "greedy.num_drafts", "not of the form"),
        ("greedy", "one_shot.num_drafts=3", "the policy is 'greedy'"),
        ("greedy", "greedy.debug_prob=2", "between 0 and 1"),
        ("evolve", "evolve.selection=rnk", "'rank'"),
        ("evolve", "evolve.temperature=0", "between 0.01 and"),
        ("evolve", "evolve.temperature=nan", "between 0.01 and"),
        ("evolve", "evolve.population=0", "at least 1"),
        ("evolve", "evolve.population=1e3", "not an integer"),
        ("mcts", "mcts.uct_c=inf", "uct_c must be at least 0"),  # lock.json could not hold it
    ],
)
def test_wrong_settings_name_what_is_wrong(policy, setting, words):
    with pytest.raises(ConfigError) as caught:
        make_policy(policy, [setting])
    assert words in str(caught.value)
