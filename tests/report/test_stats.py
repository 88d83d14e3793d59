"""The statistics: checked against scipy and choix, and in simulations with a known truth."""

import math

import choix
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from harness.report.samples import Contender, Sample
from harness.report.stats import margin as margins
from harness.report.stats import student
from harness.report.stats.elo import CENTRE, SCALE, fit, ratings
from harness.report.stats.intervals import over_seeds, t_interval, wilson
from harness.report.stats.margin import decide, further_seeds, power
from harness.report.stats.normalized import ScoreScale, normalized, scale_of
from harness.report.stats.paired import holm, paired, unpaired
from tasks.spec import find_task

SCORES = [0.641, 0.638, 0.642, 0.66, 0.61]
OTHERS = [0.49, 0.488, 0.489, 0.52, 0.47]


@pytest.mark.parametrize(
    ("df", "quantile"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (29, 2.045), (1000, 1.962)],
)
def test_students_t_is_that_of_the_tables(df, quantile):
    assert student.quantile(0.975, df) == pytest.approx(quantile, abs=5e-4)
    assert student.quantile(0.025, df) == pytest.approx(-student.quantile(0.975, df))
    assert student.tail(quantile, df) == pytest.approx(0.025, abs=5e-5)
    assert student.tail(-quantile, df) == pytest.approx(0.975, abs=5e-5)
    assert student.tail(math.inf, df) == 0.0


def test_power_is_the_tail_of_the_noncentral_t_however_far_it_is_shifted():
    for df in (1, 3.7, 9, 1000):
        assert student.shifted_tail(2.0, df, 0.0) == pytest.approx(student.tail(2.0, df))
        for shift in (-2, 1, 3.7):
            wanted = scipy.stats.nct.sf(2.0, df, shift)
            assert student.shifted_tail(2.0, df, shift) == pytest.approx(wanted, abs=1e-7)
        # Pairs that differ by rounding alone have a spread of about 1e-17.
        for shift in (1e6, 1e12, 1e17, math.inf):
            assert student.shifted_tail(student.quantile(0.9995, df), df, shift) == 1.0
    assert power(5, 1e-17, 0.003) == 1.0


def test_intervals_agree_with_scipy():
    found = t_interval(SCORES)
    wanted = scipy.stats.ttest_1samp(SCORES, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-10)
    for hits, n in ((0, 10), (3, 10), (10, 10), (108, 120)):
        share = wilson(hits, n)
        wanted = scipy.stats.binomtest(hits, n).proportion_ci(0.95, "wilson")
        assert (share.low, share.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert wilson(0, 0) is None
    assert t_interval([0.5]) is None


def test_differences_agree_with_scipy():
    found = paired([b - a for a, b in zip(OTHERS, SCORES, strict=True)])
    wanted = scipy.stats.ttest_rel(SCORES, OTHERS)
    bounds = wanted.confidence_interval(0.95)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high), rel=1e-9)
    found = unpaired(OTHERS[:3], SCORES)
    wanted = scipy.stats.ttest_ind(SCORES, OTHERS[:3], equal_var=False)
    bounds = wanted.confidence_interval(0.95)
    assert (found.p, found.df) == pytest.approx((wanted.pvalue, wanted.df), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high), rel=1e-9)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_what_its_definition_rejects(p_values):
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for k, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[index] * (len(p_values) - k) > level:
                break
            rejected.add(index)
        assert rejected == {i for i, p in enumerate(adjusted) if p <= level}


@pytest.mark.parametrize("penalty", [1e-9, 0.05, 0.5])
def test_bradley_terry_agrees_with_choix(penalty):
    wins = np.random.default_rng(0).integers(0, 9, size=(6, 6))
    np.fill_diagonal(wins, 0)
    games = [(i, j) for i in range(6) for j in range(6) for _ in range(wins[i, j])]
    wanted = choix.opt_pairwise(6, games, alpha=penalty)
    found = fit(np.stack([wins, wins.T]).astype(float), penalty)
    assert found[0] == pytest.approx(wanted, abs=1e-5)
    assert found[1] == pytest.approx(-wanted, abs=1e-5)  # tables fitted together do not mix


def test_elo_of_a_share_of_wins_and_of_one_who_always_wins():
    three_of_four = {"t": {"a": [1.0, 1.0, 1.0, 0.0], "b": [0.5]}}
    found = ratings(three_of_four, {"t": "maximize"})
    gap = found["a"].elo - found["b"].elo
    assert 0 < gap < SCALE * math.log(3)  # the penalty only pulls ratings together
    assert found["a"].elo + found["b"].elo == pytest.approx(2 * CENTRE)
    assert found["a"].interval.low < found["a"].elo < found["a"].interval.high
    always = ratings({"t": {"a": [0.9, 0.8], "b": [0.1, None]}}, {"t": "maximize"})
    assert gap < always["a"].elo - always["b"].elo < 2000


def test_elo_turns_round_with_the_direction_and_counts_ties_and_invalid_runs():
    scores = {"t": {"a": [1.0, 1.2], "b": [2.0, 2.2], "c": [None, None]}}
    lower = ratings(scores, {"t": "minimize"})
    assert lower["a"].elo > lower["b"].elo > lower["c"].elo
    higher = ratings(scores, {"t": "maximize"})
    # A valid run beats an invalid one whatever the number.
    assert higher["b"].elo > higher["a"].elo > higher["c"].elo
    even = ratings({"t": {"a": [None, 0.5], "b": [0.5 + 1e-9, None]}}, {"t": "maximize"})
    assert even["a"].elo == pytest.approx(even["b"].elo)


def test_elo_counts_tasks_alike_however_many_seeds_they_have():
    many = {"t": {"a": [1.0] * 30, "b": [0.0] * 30}, "u": {"a": [0.0], "b": [1.0]}}
    found = ratings(many, {"t": "maximize", "u": "maximize"})
    assert found["a"].elo == pytest.approx(found["b"].elo)


def test_elo_of_players_who_never_met_on_one_task():
    scores = {"t": {"a": [0.9], "b": [0.8]}, "u": {"b": [0.9], "c": [0.8]}}
    found = ratings(scores, {"t": "maximize", "u": "maximize"})
    assert found["a"].elo > found["b"].elo > found["c"].elo
    assert ratings({"t": {"a": [0.5]}}, {"t": "maximize"}) == {}


@pytest.mark.parametrize(
    ("tasks", "seeds"), [(4, 5), pytest.param(1, 10, marks=pytest.mark.nightly)]
)
def test_elo_intervals_cover_what_other_tasks_and_seeds_would_give(tasks, seeds, capsys):
    rng = np.random.default_rng(3)
    skill = np.array([0.0, 0.5, 1.0, 2.0])
    spread = 0.5 if tasks > 1 else 0.0
    found = []
    for _ in range(150):
        effects = skill + rng.normal(0, spread, (tasks, 4))
        scores = {
            f"t{t}": {f"p{i}": list(e + rng.normal(size=seeds)) for i, e in enumerate(row)}
            for t, row in enumerate(effects)
        }
        found.append(ratings(scores, dict.fromkeys(scores, "maximize")))
    truth = {p: np.mean([f[p].elo for f in found]) for p in found[0]}
    covered = [
        f[p].interval.low <= t <= f[p].interval.high for f in found for p, t in truth.items()
    ]
    with capsys.disabled():
        print(f"\nElo, {tasks} tasks x {seeds} seeds: {np.mean(covered):.3f}")
    # 0.95 less three standard errors of 150 trials: a trial's four players are correlated.
    assert np.mean(covered) >= 0.897


def test_normalised_score_is_the_papers_formula_and_never_below_zero():
    marks = ScoreScale(task="t", profile="p", worst=0.1, best=0.9, source="s")
    phi = lambda s: -math.log10(abs(s - 1))  # noqa: E731
    wanted = (phi(0.7) - phi(0.1)) / (phi(0.9) - phi(0.1))
    assert normalized(0.7, marks, "accuracy") == pytest.approx(wanted)
    assert [normalized(s, marks, "accuracy") for s in (0.1, 0.9, 0.05, None)] == pytest.approx(
        [0, 1, 0, 0]
    )
    assert 1 < normalized(0.99, marks, "accuracy") < normalized(1.0, marks, "accuracy") < 4
    bits = ScoreScale(task="t", profile="p", worst=1.0121, best=0.9697, source="s")
    assert 0 < normalized(1.0, bits, "bits_per_byte") < normalized(0.98, bits, "bits_per_byte") < 1


def test_marks_of_a_variant_are_its_tasks():
    def scale(task, profile="paper"):
        return scale_of(find_task(task).definition, profile)

    assert scale("lra/text-configurable").best == 0.9053
    assert scale("lra/text-configurable").task == "lra/text"
    assert "0.9125" in scale("lra/retrieval").disputed
    assert scale("lra/text", "smoke-of-somebody") is None


NIGHTLY = pytest.mark.nightly


@pytest.fixture
def verdicts_only(monkeypatch):
    """Skip power and further seeds: they take most of the time, and no verdict depends on them."""
    for name in ("power", "further_seeds"):
        monkeypatch.setattr(margins, name, lambda *_: None)


@pytest.mark.parametrize(
    "n", [3, 5, 9, 10, pytest.param(12, marks=NIGHTLY), pytest.param(20, marks=NIGHTLY)]
)
def test_intervals_over_seeds_cover_the_truth_as_often_as_they_say(n, capsys):
    rng = np.random.default_rng(8)
    trials = 800
    shapes = {"normal": (rng.normal(size=(trials, n)), 0.0)}
    if n >= 10:
        shapes["skewed"] = (rng.exponential(size=(trials, n)), math.log(2))
    for name, (draws, truth) in shapes.items():
        found = [over_seeds(list(draw)) for draw in draws]
        coverage = np.mean([i.low <= truth <= i.high for i in found])
        with capsys.disabled():
            print(f"\n{n} seeds, {name}, {found[0].method} of the {found[0].of}: {coverage:.3f}")
        # 0.95 less three standard errors of 800 trials.
        assert 0.927 <= coverage < 0.99


def simulated(rng, true_drop, *, pairs, tasks, trials, spread=0.02, rows=2000, invalid=0.0):
    """Simulate ``trials`` gates; return the set of verdicts of each.

    Scores are accuracies on ``rows`` test rows. The two runs of a pair share the effect of a seed.
    A run is invalid, and scores 0, with probability ``invalid``.
    """
    verdicts = []
    for _ in range(trials):
        tests = []
        for _task in range(tasks):
            seed = 0.6 + rng.normal(0, spread, pairs)
            before, after = (seed + rng.normal(0, spread / 2, pairs) for _ in range(2))
            measured = [
                rng.binomial(rows, p) / rows * (rng.random(pairs) >= invalid)
                for p in (before, after - true_drop)
            ]
            tests.append(paired(list(measured[1] - measured[0]), score_step=1 / rows))
        verdicts.append({call.verdict for call in decide(tests, [0.01] * tasks)})
    return verdicts


@pytest.mark.usefixtures("verdicts_only")
@pytest.mark.parametrize(
    ("pairs", "tasks"),
    [(3, 1), pytest.param(5, 3, marks=pytest.mark.slow), pytest.param(10, 6, marks=NIGHTLY)],
)
def test_gate_raises_false_alarms_no_more_often_than_its_level(pairs, tasks, capsys):
    rng = np.random.default_rng(1)
    null = simulated(rng, 0.0, pairs=pairs, tasks=tasks, trials=2000)
    edge = simulated(rng, 0.01, pairs=pairs, tasks=tasks, trials=2000)
    alarms = [np.mean(["regression" in v for v in found]) for found in (null, edge)]
    passed = np.mean([v == {"no regression"} for v in edge])
    with capsys.disabled():
        print(
            f"\n{pairs} seeds x {tasks} tasks, 2,000 nulls: false alarms {alarms[0]:.4f}, exactly "
            f"at the limit {alarms[1]:.4f}; wrongly passed there {passed:.4f}"
        )
    assert alarms[0] <= 0.025
    # Exactly at the limit the error rate is the level: 0.025 plus three standard errors.
    assert alarms[1] <= 0.036
    assert passed <= 0.036


@pytest.mark.usefixtures("verdicts_only")
def test_runs_that_are_often_invalid_raise_no_more_false_alarms(capsys):
    """An invalid run moves a difference by a whole score: far from normal, but the level holds."""
    rng = np.random.default_rng(4)
    null = simulated(rng, 0.0, pairs=5, tasks=1, trials=2000, invalid=0.3)
    alarms = np.mean(["regression" in v for v in null])
    with capsys.disabled():
        print(f"\n3 of 10 runs invalid, 2,000 nulls of 5 seeds: false alarms {alarms:.4f}")
    assert alarms <= 0.025


def test_gate_sees_a_real_drop_and_says_its_power_truly(capsys):
    rng = np.random.default_rng(2)
    verdicts = simulated(rng, 0.08, pairs=5, tasks=2, trials=300)
    assert np.mean(["regression" in v for v in verdicts]) > 0.95
    tests = rng.normal(0, 0.006, size=(2000, 8))
    passed = np.mean(
        [decide([paired(list(d))], [0.01])[0].verdict == "no regression" for d in tests]
    )
    promised = power(8, 0.006, 0.01)
    with capsys.disabled():
        print(f"\npower of 8 pairs: {promised:.3f} promised, {passed:.3f} of 2,000 passed")
    assert passed == pytest.approx(promised, abs=0.03)


def test_exact_equality_is_a_verdict_and_divides_nothing_by_zero():
    same = paired([0.0, 0.0])
    assert same.identical
    assert decide([same], [0.0])[0].verdict == "no regression"
    constant = paired([-0.25, -0.25, -0.25])
    assert decide([constant], [0.01])[0].verdict == "regression"
    assert decide([paired([0.25, 0.25])], [0.01])[0].verdict == "no regression"
    assert paired([-0.25, -0.25]).p == 0.0


def test_one_pair_tells_nothing_not_even_of_equality():
    for difference in (0.0, -0.5):
        call = decide([paired([difference])], [0.01])[0]
        assert (call.verdict, call.further_seeds) == ("cannot tell", 1)
    assert decide([None], [0.01])[0].further_seeds == 2


def test_a_chance_tie_of_coarse_scores_is_not_taken_for_certainty():
    """Both pairs differ by 1 row of 128: rounding may hide a spread that matters for 0.005."""
    assert decide([paired([-1 / 128] * 2)], [0.005])[0].verdict == "regression"
    coarse = paired([-1 / 128] * 2, score_step=1 / 128)
    assert decide([coarse], [0.005])[0].verdict == "cannot tell"
    assert decide([paired([-0.5] * 3, score_step=1 / 128)], [0.005])[0].verdict == "regression"


def test_further_seeds_settle_it_and_one_fewer_would_not():
    test = paired([0.004, -0.006, 0.001])
    call = decide([test], [0.01])[0]
    assert call.verdict == "cannot tell"
    needed = test.n + call.further_seeds

    def settled(n):
        half = scipy.stats.t.ppf(0.975, n - 1) * test.deviation / math.sqrt(n)
        return half < test.mean + 0.01

    assert settled(needed)
    assert not settled(needed - 1)
    assert further_seeds(paired([-0.02, 0.0]), 0.01, 0.025) is None  # exactly at the limit


def test_alarms_are_corrected_over_tasks_and_passing_needs_all():
    drop = paired([-0.030, -0.022, -0.034, -0.018])  # if tested alone, a regression beyond 0.01
    fine = paired([0.001, -0.001, 0.0005, -0.0002])
    assert decide([drop], [0.01])[0].verdict == "regression"
    among = decide([drop, *[fine] * 9], [0.01] * 10)
    assert [c.verdict for c in among] == ["cannot tell", *["no regression"] * 9]
    assert among[0].p == pytest.approx(10 * decide([drop], [0.01])[0].p)


@pytest.mark.parametrize(
    ("metric", "direction", "floor"),
    [("accuracy", "maximize", 0.0), ("bits_per_byte", "minimize", 8.0)],
)
def test_an_invalid_run_counts_as_the_metrics_floor(metric, direction, floor):
    who = Contender("a", "greedy", "")
    sample = Sample(who, "t", metric, direction, {}, {0: (0.5, None), 1: (None,)})
    assert sample.values == {0: (0.5 + floor) / 2, 1: floor}
