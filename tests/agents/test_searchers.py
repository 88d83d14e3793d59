"""The classical searchers, on trees made by hand: of sequences of layers, and of other knobs."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random
from statistics import mean

import pytest

from harness.agents import AGENTS
from harness.agents.gaussian_process import candidates, encode
from harness.agents.mutation import POPULATION
from harness.agents.prior import CHEAPEST, TURN, draw_sequence, follow
from harness.agents.space import Space, SpacePoint
from harness.base.errors import ConfigError
from harness.base.seeds import derive
from harness.core.agent import Answer, Ask, Exhausted
from harness.core.tree import Node, Tree
from tasks.definition import Definition, Knob, Profile, Sequence
from tasks.spec import Task, find_task

PLAIN = Sequence(primitives=("A", "M"), mixers=("A",))
HYBRID = Sequence(primitives=("A", "M", "Mb"), mixers=("A", "Mb"))
MIXED = {
    "width": Knob(low=1, high=3, integer=True),
    "style": Knob(choices=("plain", "fancy")),
}
REAL = {**MIXED, "rate": Knob(low=1e-3, high=1.0, log=True)}
# As version 0.1 drew them, which looked at no tree.
RANDOM_ON_TOY = [
    {"known": 3, "style": "fancy"},
    {"known": 2, "style": "plain"},
    {"known": 3, "style": "plain"},
    {"known": 4, "style": "fancy"},
]
REAL_DRAW = {"width": 3, "style": "fancy", "rate": 0.0027230324672725906}
WITHOUT_REPEATS = ("random", "local", "gp", "prior")


def a_task(sequence: Sequence | None = None, layers: int = 6, knobs=None) -> Task:
    """Return a task without files, of sequences or of other knobs."""
    profile = Profile.model_construct(settings={"layers": layers})
    definition = Definition.model_construct(
        name="made", files=("string.txt",), knobs=knobs or {}, bounds={}, sequence=sequence,
        profiles={"test": profile},
    )  # fmt: skip
    return Task(Path(), definition, "fixed")


class MadeTask(Task):
    """A task of knobs whose submissions are the values."""

    def render(self, values):
        return {"string.txt": repr(values)}


SIX = a_task(PLAIN)
KNOBS = MadeTask(Path(), a_task(knobs=MIXED).definition, "fixed")
REALS = MadeTask(Path(), a_task(knobs=REAL).definition, "fixed")


def ask(task: Task, tree: Tree, node: int | None = None, seed: int = 0) -> Ask:
    node = len(tree) if node is None else node
    return Ask(task, "test", "draft", node, (), tree.copy(), derive(seed, node))


def write(agent: str, task: Task, tree: Tree, node: int | None = None, seed: int = 0) -> Answer:
    """Ask an agent for the next node; the policy's choice is on the tree, as in a run."""
    node = len(tree) if node is None else node
    asked = tree.copy()
    if node not in asked:
        asked.add(Node(node, "draft", ()))
    return AGENTS.find(agent)().write(ask(task, asked, node, seed))


def grown(*points, maximize: bool = True) -> Tree:
    """Return a tree of scored nodes: pairs of knobs (or a string of layers) and a score."""
    tree = Tree(maximize=maximize)
    for number, (given, score) in enumerate(points):
        knobs = layers(given) if isinstance(given, str) else given
        tree.add(
            Node(
                number, "draft", (), state="scored", knobs=knobs,
                valid=score is not None, score=score,
            )
        )  # fmt: skip
    return tree


def layers(string: str) -> dict:
    return {f"layer_{i:02}": primitive for i, primitive in enumerate(string, 1)}


def text(answer: Answer) -> str:
    assert answer.knobs is not None
    return "".join(map(str, answer.knobs.values()))


def search(agent: str, task: Task, score, steps: int, seed: int = 0) -> Tree:
    """Run an agent alone; ``score`` takes the text of the knobs. None is an invalid node."""
    tree = Tree()
    for number in range(steps):
        answer = write(agent, task, tree, seed=seed)
        got = score(text(answer))
        tree.add(
            Node(
                number, "draft", (), state="scored", knobs=answer.knobs, note=answer.note,
                valid=got is not None, score=got,
            )
        )  # fmt: skip
    return tree


def texts(tree: Tree) -> list[str]:
    return ["".join(map(str, node.knobs.values())) for node in tree]


def ordered(string: str) -> float:
    """Return a score for what follows what, wherever: at most 4 for 8 layers, by AMAMAMAM."""
    return string.count("AM") - 0.5 * string.count("MM") - 0.5 * string.count("AAA")


def separable(string: str) -> float:
    return sum(i * (one == "A") for i, one in enumerate(string, -2))


def test_a_sequence_has_a_knob_for_each_layer_and_is_one_line():
    assert list(SIX.knobs("test")) == [f"layer_{i:02}" for i in range(1, 7)]
    shuffled = dict(reversed(layers("AAMAMM").items()))
    assert SIX.render(shuffled) == {"string.txt": "A A M A M M\n"}


@pytest.mark.parametrize("agent", ["random", "local", "gp"])
@pytest.mark.parametrize("task", [a_task(PLAIN, 4), KNOBS], ids=["sequence", "knobs"])
def test_no_point_comes_twice_until_the_whole_space_is_tried(agent, task):
    size = Space(task, task.knobs("test")).size
    tree = search(agent, task, len, size)
    assert len(set(texts(tree))) == size
    with pytest.raises(Exhausted, match=f"All {size} points"):
        write(agent, task, tree)


def test_the_prior_ends_when_all_that_begins_with_a_mixer_is_tried():
    tree = search("prior", SIX, len, 32)
    assert set(texts(tree)) == {"A" + "".join(rest) for rest in product("AM", repeat=5)}
    with pytest.raises(Exhausted, match="prior"):
        write("prior", SIX, tree)


@pytest.mark.parametrize("agent", WITHOUT_REPEATS)
def test_what_is_running_or_ungraded_is_not_written_again(agent):
    """One string is left: nodes that have no score yet hold two of the others."""
    strings = ["".join(one) for one in product("AM", repeat=3)]
    tree = grown(*((one, 0.5) for one in strings if one != "AMM"))
    tree.update(2, state="written", valid=False, score=None)
    tree.update(3, state="ungraded", valid=False, score=None)
    assert text(write(agent, a_task(PLAIN, 3), tree)) == "AMM"


@pytest.mark.parametrize("agent", ["random", "tpe", "evolution", "local", "gp", "prior"])
def test_the_same_tree_and_seed_give_the_same_answer_and_another_seed_another(agent):
    some = Random(5)
    tree = grown(*(("".join(some.choices("AM", k=6)), some.random()) for _ in range(25)))
    first = write(agent, SIX, tree)
    assert first == write(agent, SIX, tree.copy())
    others = {text(write(agent, SIX, tree, seed=seed)) for seed in range(1, 30)}
    assert len(others) > 1 or agent == "gp"  # which has a best candidate, whatever the seed


def test_the_first_draws_of_random_are_those_of_old_runs():
    assert [
        write("random", find_task("toy"), Tree(), seed=seed).knobs for seed in range(4)
    ] == RANDOM_ON_TOY
    assert write("random", REALS, Tree(), seed=3).knobs == REAL_DRAW


def test_each_untried_point_is_equally_likely():
    space = Space(SIX, SIX.knobs("test"))
    left = {("A",) * 6, ("M",) * 6, tuple("AMAMAM")}
    tried = set(space.untried(left))
    assert len(tried) == 61
    rng = Random(0)
    drawn = [space.draw_untried(tried, rng) for _ in range(600)]
    assert set(drawn) == left
    assert all(150 < drawn.count(one) < 250 for one in left)


def test_nodes_of_other_knobs_are_not_counted():
    tree = grown(("AMAMAM", 0.5), ("AM", 0.9), ({"width": 2}, 0.9), ("AMAMAX", 0.9))
    space = Space(SIX, SIX.knobs("test"))
    assert space.tried(tree) == {tuple("AMAMAM")}
    assert [node.number for node, _ in space.ranked(tree)] == [0]


@pytest.mark.parametrize("sequence", [PLAIN, HYBRID], ids=["plain", "hybrid"])
def test_mutations_of_a_sequence_are_one_step_away(sequence):
    task = a_task(sequence, 7)
    space = Space(task, task.knobs("test"))
    for seed in range(20):
        point = space.draw(Random(seed))
        changed, *more = space.mutations(point, Random(0))
        assert len(set(changed)) == 7 * (len(sequence.primitives) - 1)
        assert all(sum(a != b for a, b in zip(point, one, strict=True)) == 1 for one in changed)
        if len(set(point)) == 1:
            assert not more
            continue
        swapped, grown_runs = more
        assert len(swapped) == len(set(swapped))
        for one in swapped:
            assert sum(a != b for a, b in zip(point, one, strict=True)) == 2
            assert sorted(one) == sorted(point)
        for one in grown_runs:
            (place,) = (i for i in range(7) if one[i] != point[i])
            assert one[place] in point[max(place - 1, 0) : place + 2]
        for one in [*changed, *swapped, *grown_runs]:
            assert set(one) <= set(sequence.primitives)


def test_all_mutations_of_one_sequence():
    space = Space(a_task(PLAIN, 4), a_task(PLAIN, 4).knobs("test"))
    changed, swapped, grown_runs = space.mutations(tuple("AAMM"), Random(0))
    assert ["".join(one) for one in changed] == ["MAMM", "AMMM", "AAAM", "AAMA"]
    assert ["".join(one) for one in swapped] == ["MAAM", "MAMA", "AMAM", "AMMA"]
    assert sorted("".join(one) for one in grown_runs) == ["AAAM", "AMMM"]


def test_mutations_of_knobs_change_one():
    space = Space(REALS, REAL)
    point: SpacePoint = (2, "plain", 0.1)
    wide, style, rate = space.mutations(point, Random(1))
    assert wide == [(1, "plain", 0.1), (3, "plain", 0.1)]
    assert style == [(2, "fancy", 0.1)]
    ((*same, new),) = rate
    assert same == [2, "plain"]
    assert new != 0.1
    assert REAL["rate"].allows(new)
    # Two million values are too many to list.
    wide_only = Space(KNOBS, {"steps": Knob(low=1, high=2e6, integer=True)})
    ((one,),) = wide_only.mutations((5,), Random(0))
    assert 1 <= one[0] <= 2e6
    assert wide_only.size == 2_000_000


def test_evolution_begins_at_random_then_mutates_one_of_the_youngest():
    """The oldest ten are the best by far, and dead: no child is near them alone."""
    dead = [("AAAAAAAAAAAA", 9.0)] * 10
    alive = [("MMMMMMMMMMMM", 0.1 * i) for i in range(POPULATION)]
    task = a_task(PLAIN, 12)
    young = grown(*alive[1:])
    assert write("evolution", task, young).note.endswith("at random")
    tree = grown(*dead, *alive)
    parents = set()
    for seed in range(60):
        answer = write("evolution", task, tree, seed=seed)
        assert text(answer).count("A") == 1
        parents.add(int(answer.note.partition("from node ")[2].partition(":")[0]))
    # The winner of five is never one of the worst four, and not always the best.
    assert min(parents) >= 10 + 4
    assert max(parents) == 29
    assert len(parents) > 5


@pytest.mark.parametrize(("steps", "population"), [(16, 5), (40, 10), (80, 20), (4000, 20)])
def test_the_population_is_a_quarter_of_a_short_run(steps, population):
    """The oldest node is the best: it wins each tournament that it is drawn for, while it lives."""
    agent, points = AGENTS.find("evolution")(), [("AAAAAA", 9.0)] + [("MMMMMM", 0.1)] * 40
    for scored in (population - 1, population, population + 1):
        tree = grown(*points[:scored])
        notes = [
            agent.write(replace(ask(SIX, tree, seed=seed), steps=steps)).note for seed in range(40)
        ]
        parents = [note.partition("from node ")[2].partition(":")[0] for note in notes]
        assert (set(parents) == {""}) == (scored < population)
        assert ("0" in parents) == (scored == population)


@pytest.mark.parametrize(("maximize", "losers"), [(True, {0, 1, 18, 19}), (False, {0, 1, 2, 3})])
def test_evolution_counts_an_invalid_node_as_the_worst(maximize, losers):
    """The four worst of twenty can win no tournament of five."""
    scores = [None, None, *(-1.0 * i for i in range(18))]
    tree = grown(*(("AAAMMM", score) for score in scores), maximize=maximize)
    notes = [write("evolution", SIX, tree, seed=seed).note for seed in range(100)]
    parents = {int(note.partition("from node ")[2].partition(":")[0]) for note in notes}
    assert not parents & losers
    assert len(parents) > 5


@pytest.mark.parametrize("agent", ["evolution", "local", "gp"])
def test_searchers_go_on_when_nothing_is_valid(agent):
    tree = search(agent, SIX, lambda _: None, 25)
    assert len(tree) == 25


def test_local_climbs_to_the_top_of_a_separable_score():
    """Each layer counts for itself: 80 strings of 4,096 are enough, from anywhere."""
    task = a_task(PLAIN, 12)
    for seed in range(5):
        tree = search("local", task, separable, 80, seed)
        assert tree.best().score == separable("M" * 2 + "A" * 10)


def test_local_takes_the_second_best_when_all_about_the_best_is_tried():
    space = Space(SIX, SIX.knobs("test"))
    best = tuple("AAAMMM")
    about = {one for kind in space.mutations(best, Random(0)) for one in kind}
    tree = grown(("AAAMMM", 9.0), *(("".join(one), 0.1) for one in about), ("MMAAAA", 5.0))
    answer = write("local", SIX, tree)
    assert f"from node {len(tree) - 1}: layer " in answer.note
    # A lower score is better for a task that minimises.
    low = grown(("AAAAAA", 9.0), ("MMMMMM", 0.1), maximize=False)
    assert "from node 1:" in write("local", SIX, low).note


def test_notes_tell_what_was_done():
    tree = grown(("AAAAAA", 1.0))
    answer = write("local", SIX, tree)
    string, _, how = answer.note.partition("; ")
    (place,) = (i for i, one in enumerate(string, 1) if one == "M")
    assert string == text(answer)
    assert how == f"from node 0: layer {place} A to M"
    assert write("random", SIX, Tree()).note == text(write("random", SIX, Tree()))
    tree = grown(({"width": 2, "style": "plain", "rate": 0.125}, 1.0))
    notes = {write("local", REALS, tree, seed=seed).note for seed in range(20)}
    assert "width=2, style=fancy, rate=0.125; from node 0: style plain to fancy" in notes


@pytest.mark.parametrize("agent", ["random", "tpe", "evolution", "local", "gp"])
@pytest.mark.parametrize("maximize", [True, False])
def test_real_knobs_stay_in_their_ranges(agent, maximize):
    rng = Random(2)
    space = Space(REALS, REAL)
    nodes = [dict(zip(REAL, space.draw(rng), strict=True)) for _ in range(22)]
    tree = grown(*((knobs, knobs["width"] + knobs["rate"]) for knobs in nodes), maximize=maximize)
    for seed in range(2):
        knobs = write(agent, REALS, tree, seed=seed).knobs
        assert all(REAL[name].allows(value) for name, value in knobs.items())
        assert knobs not in nodes or agent == "evolution"


def test_gp_finds_an_order_sooner_than_random_draws():
    """The best of 16 strings out of 256, in the mean of four seeds; the first five are shared."""
    task = a_task(PLAIN, 8)
    found = {
        agent: mean(search(agent, task, ordered, 16, seed).best().score for seed in range(4))
        for agent in ("gp", "random")
    }
    assert found["gp"] > found["random"] + 0.5


def test_gp_sees_places_and_order():
    space = Space(a_task(PLAIN, 4), a_task(PLAIN, 4).knobs("test"))
    (first, second), counts = encode(space, [tuple("AAMM"), tuple("AMAA")])
    assert first == [1, 0, 1, 0, 0, 1, 0, 1]
    assert second == [1, 0, 0, 1, 1, 0, 1, 0]
    words = ["".join(word) for n in (2, 3) for word in product("AM", repeat=n)]
    for string, row in zip(("AAMM", "AMAA"), counts, strict=True):
        seen = [string[i : i + n] for n in (2, 3) for i in range(5 - n)]
        assert row == [seen.count(word) for word in words]
    (rows,) = encode(Space(REALS, REAL), [(1, "fancy", 1e-3), (3, "plain", 1.0)])
    assert rows == [[0, 0, 1, 0], [4, 1, 0, pytest.approx(4)]]


def test_gp_looks_in_the_direction_of_the_metric():
    strings = ("AAAMMM", "AAMMMM", "AMMMMM", "AAAAMM", "MMMAAA", "MAMAMA")
    points = [(one, float(one.count("A"))) for one in strings]
    assert text(write("gp", SIX, grown(*points))).count("A") > 4
    assert text(write("gp", SIX, grown(*points, maximize=False))).count("A") < 2


def test_gp_gives_each_of_several_slots_another_point():
    """Nodes 6 and 7 are asked for at once: neither is on the other's tree with a point."""
    tree = search("random", SIX, ordered, 6)
    tree.add(Node(6, "draft", ()))
    first = write("gp", SIX, tree, 6)
    tree.add(Node(7, "draft", ()))
    assert text(first) != text(write("gp", SIX, tree, 7))


def test_gp_takes_candidates_near_the_best_of_a_space_too_large_to_list():
    task = a_task(PLAIN, 16)
    space = Space(task, task.knobs("test"))
    best = ("A",) * 15 + ("M",)
    near = {one for kind in space.mutations(best, Random(0)) for one in kind}
    tried = {best, *sorted(near)[:12]}
    tree = grown(*(("".join(one), float(one == best)) for one in sorted(tried)))
    random = space.draw(Random(1))
    pool = candidates(space, tree, random, Random(2))
    assert near - tried < set(pool)
    assert random in pool
    assert not tried & set(pool)
    assert 1900 < len(pool) == len(set(pool))
    assert write("gp", task, tree).note.partition("; ")[2].startswith("expected improvement ")


def test_an_extra_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.gaussian_process", None)
    with pytest.raises(ConfigError, match="scikit-learn") as caught:
        write("gp", SIX, Tree())
    assert "aira-harness[gp]" in caught.value.remedy


@pytest.mark.parametrize("sequence", [PLAIN, HYBRID], ids=["plain", "hybrid"])
def test_the_prior_is_a_chain_whose_odds_sum_to_one(sequence):
    for before in (None, *sequence.primitives):
        assert sum(follow(sequence, before).values()) == 1
    assert follow(sequence, None)["M"] == 0
    assert follow(sequence, "A")["M"] == TURN
    assert follow(sequence, "M")["M"] == 1 - TURN
    if sequence is HYBRID:
        assert follow(sequence, "M")["Mb"] == TURN * CHEAPEST


def test_the_prior_begins_with_mixers_and_others_in_turn():
    assert text(write("prior", SIX, Tree())) == "AMAMAM"
    assert text(write("prior", a_task(HYBRID, 5), Tree())) == "MbMMbMMb"


def test_the_prior_draws_what_is_left_by_its_probability():
    """Tried: AM. Left of length two: AA, as M is no beginning. With three: by the chain."""
    rng = Random(0)
    assert draw_sequence(PLAIN, 2, {("A", "M")}, rng) == ("A", "A")
    tried = {tuple("AMA")}
    drawn = ["".join(draw_sequence(PLAIN, 3, tried, rng)) for _ in range(2000)]
    # P(AMM) = P(AAM) = .85 * .15 = .1275, P(AAA) = .0225: of what is left 46%, 46% and 8%.
    assert abs(drawn.count("AMM") / 2000 - 0.459) < 0.05
    assert abs(drawn.count("AAM") / 2000 - 0.459) < 0.05
    assert abs(drawn.count("AAA") / 2000 - 0.081) < 0.03


def test_the_prior_is_refused_where_it_knows_nothing():
    for task in (KNOBS, a_task(Sequence(primitives=("A", "M")))):
        with pytest.raises(ConfigError, match="prior") as caught:
            write("prior", task, Tree())
        assert "evolution" in caught.value.remedy


def test_a_task_without_knobs_is_refused():
    for agent in ("random", "tpe", "evolution", "local", "gp", "prior"):
        with pytest.raises(ConfigError, match="no knobs"):
            write(agent, a_task(), Tree())
