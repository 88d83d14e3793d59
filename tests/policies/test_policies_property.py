"""What must hold for every policy with any parameters, any outcomes and any number of slots."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.seeds import stream
from harness.core.tree import Node, Tree
from harness.policies import make_policy

EXAMPLES = settings.default.max_examples * 2 // 5
PARAMETERS = {
    "one_shot": {},
    "greedy": {
        "num_drafts": st.integers(1, 4),
        "debug_prob": st.sampled_from([0.0, 0.5, 1.0]),
        "max_debug_depth": st.integers(0, 3),
    },
    "mcts": {
        "num_children": st.integers(1, 4),
        "uct_c": st.sampled_from([0.0, 0.25, 5.0]),
        "max_debug_depth": st.integers(0, 3),
    },
    "evolve": {
        "num_drafts": st.integers(1, 4),
        "selection": st.sampled_from(["rank", "fitness"]),
        "temperature": st.sampled_from([0.01, 0.2, 1.0, 1e6]),
        "crossover_prob": st.sampled_from([0.0, 0.15, 1.0]),
        "population": st.integers(1, 6),
        "max_debug_depth": st.integers(0, 3),
        "generation_size": st.integers(0, 3),
    },
}
SCORES = st.one_of(st.none(), st.integers(0, 5).map(float), st.floats(-1e9, 1e9))


def policies(name: str):
    drawn = st.fixed_dictionaries(PARAMETERS[name])
    return drawn.map(lambda v: make_policy(name, [f"{name}.{k}={x}" for k, x in v.items()]))


def check(policy, tree: Tree, decision) -> None:
    """Assert what must hold for any decision of a policy on a tree."""
    running = [n for n in tree if n.state != "scored"]
    parents = [tree[p] for p in decision.parents]
    assert all(p.state == "scored" for p in parents)
    assert len(set(decision.parents)) == {"draft": 0, "crossover": 2}.get(decision.operator, 1)
    if decision.operator == "draft":
        wanted = getattr(policy, "num_drafts", getattr(policy, "num_children", 1))
        drafts = sum(n.operator == "draft" for n in tree)
        assert drafts < wanted or not running
    elif decision.operator == "debug":
        (parent,) = parents
        assert parent.buggy
        assert tree.children(parent.number) == []
        assert tree.debug_depth(parent.number) < policy.max_debug_depth
    else:
        assert all(p.valid for p in parents)
    if policy.name == "mcts" and decision.operator == "improve":
        (parent,) = parents
        assert len(tree.children(parent.number)) < policy.num_children
    if policy.name == "evolve" and parents and parents[0].valid:
        for p in parents if not policy.generation_size else ():
            better = [n for n in tree if n.valid and tree.better(n.score, p.score)]
            assert len(better) < policy.population


def grow(policy, outcomes, slots: int, order: Random, *, maximize: bool) -> Tree:
    """Let a policy grow a tree while nodes finish in random order; check every decision."""
    tree = Tree(maximize=maximize)
    outcomes = list(outcomes)
    while True:
        running = [n.number for n in tree if n.state != "scored"]
        while len(running) < slots and len(tree) < len(outcomes):
            number = len(tree)
            decision = policy.choose(tree, stream(7, "choose", number))
            again = policy.choose(tree.copy(), stream(7, "choose", number))
            assert decision == again
            if decision is None:
                # With no node running, None ends the search: only one_shot may end it.
                assert running or (policy.name == "one_shot" and len(tree) == 1)
                break
            check(policy, tree, decision)
            tree.add(Node(number, decision.operator, decision.parents))
            running.append(number)
        if not running:
            return tree
        number = order.choice(running)
        if tree[number].state == "chosen":
            tree.update(number, state="written")
        else:
            score = outcomes[number]
            tree.update(number, state="scored", valid=score is not None, score=score)


@pytest.mark.parametrize("name", PARAMETERS)
@settings(max_examples=EXAMPLES, database=None)
@given(data=st.data())
def test_no_tree_that_can_arise_breaks_a_policy(name, data):
    policy = data.draw(policies(name))
    outcomes = data.draw(st.lists(SCORES, min_size=1, max_size=25))
    slots = data.draw(st.integers(1, 5))
    maximize = data.draw(st.booleans())
    order = Random(data.draw(st.integers(0, 1000)))
    tree = grow(policy, outcomes, slots, order, maximize=maximize)
    if name != "one_shot":
        assert len(tree) == len(outcomes)
        assert max(tree.debug_depth(n.number) for n in tree) <= policy.max_debug_depth


@pytest.mark.parametrize("name", ["greedy", "mcts", "evolve"])
@settings(max_examples=EXAMPLES // 2, database=None)
@given(data=st.data())
def test_lower_is_better_is_higher_is_better_mirrored(name, data):
    policy = data.draw(policies(name))
    outcomes = data.draw(st.lists(SCORES, min_size=1, max_size=25))
    mirrored = [None if s is None else -s for s in outcomes]
    one = grow(policy, outcomes, 1, Random(0), maximize=True)
    other = grow(policy, mirrored, 1, Random(0), maximize=False)
    assert [(n.operator, n.parents) for n in one] == [(n.operator, n.parents) for n in other]
