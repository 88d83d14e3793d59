"""``harness compare``: two sets of runs, paired where they share a seed, and the verdict."""

import pytest
import scipy.stats
from calling import call

from .made_runs import BITS, make_run, make_runs

A = {0: 0.60, 1: 0.62, 2: 0.61, 3: 0.60}
B = {0: 0.64, 1: 0.66, 2: 0.64, 3: 0.65}


def compare(runs, a, b, *more, code=0):
    return call("compare", a, b, "--runs", runs, *more, code=code)


def as_json(*args, **how):
    return compare(*args, "--json", **how).json


def test_agents_are_paired_by_seed(tmp_path):
    make_runs(tmp_path, A, agent="a")
    make_runs(tmp_path, B, agent="b")
    (task,) = as_json(tmp_path, "a", "b")["tasks"]
    wanted = scipy.stats.ttest_rel(list(B.values()), list(A.values()))
    assert task["difference"]["p"] == pytest.approx(wanted.pvalue)
    assert (task["difference"]["n"], task["difference"]["paired"]) == (4, True)
    assert list(task["difference"]["by_seed"].values()) == pytest.approx([0.04, 0.04, 0.03, 0.05])
    assert task["verdict"] == "B is better"
    assert "A is better" in compare(tmp_path, "b", "a").stdout


def test_only_seeds_that_both_have_are_paired_and_without_any_it_is_said(tmp_path):
    make_runs(tmp_path, A, agent="a")
    make_runs(tmp_path, {2: 0.65, 3: 0.66, 4: 0.9}, agent="b")
    make_runs(tmp_path, {7: 0.65, 8: 0.66, 9: 0.64}, agent="c")
    assert as_json(tmp_path, "a", "b")["tasks"][0]["difference"]["n"] == 2
    (task,) = as_json(tmp_path, "a", "c")["tasks"]
    wanted = scipy.stats.ttest_ind([0.65, 0.66, 0.64], list(A.values()), equal_var=False)
    assert not task["difference"]["paired"]
    assert task["difference"]["p"] == pytest.approx(wanted.pvalue)
    assert "unpaired" in compare(tmp_path, "a", "c").stdout


def test_better_is_positive_whatever_the_direction(tmp_path):
    make_runs(tmp_path, {0: 1.00, 1: 1.01, 2: 1.00}, agent="a", **BITS)
    make_runs(tmp_path, {0: 0.97, 1: 0.99, 2: 0.98}, agent="b", **BITS)
    make_runs(tmp_path, {5: 0.97, 6: 0.99, 7: 0.98}, agent="c", **BITS)
    for other in "bc":
        found = as_json(tmp_path, "a", other)["tasks"][0]["difference"]
        assert found["low"] < found["mean"] < found["high"]
        assert found["mean"] == pytest.approx(0.07 / 3)


def test_p_values_are_corrected_over_tasks(tmp_path):
    for task in ("lra/listops", "lra/text"):
        make_runs(tmp_path, A, agent="a", task=task)
        make_runs(tmp_path, B, agent="b", task=task)
    found = as_json(tmp_path, "a", "b")["tasks"]
    alone = scipy.stats.ttest_rel(list(B.values()), list(A.values())).pvalue
    assert [t["difference"]["p"] for t in found] == pytest.approx([2 * alone] * 2)


def test_an_invalid_run_counts_as_the_worst_score_and_is_shown(tmp_path):
    make_runs(tmp_path, A, agent="a")
    make_runs(tmp_path, {**B, 3: None}, agent="b")
    (task,) = as_json(tmp_path, "a", "b")["tasks"]
    assert task["b"]["mean"] == pytest.approx((0.64 + 0.66 + 0.64) / 4)
    assert task["verdict"] == "cannot be told apart"
    assert task["difference"]["further_seeds"] > 0
    text = compare(tmp_path, "a", "b").stdout
    assert "valid 3 of 4 (those alone 0.6467)" in text
    assert "further seeds would tell" in text


def test_other_conditions_are_not_compared_unless_that_is_asked_for(tmp_path):
    make_runs(tmp_path / "before", A)
    make_runs(tmp_path / "after", B, scorer="3+new")
    sides = (tmp_path / "before", tmp_path / "after")
    found = as_json(tmp_path, *sides, code=5)
    assert found["tasks"] == []
    assert "scorer 2+abc against 3+new" in found["not_compared"][0]["reason"]
    (task,) = as_json(tmp_path, *sides, "--across", "scorer")["tasks"]
    assert task["across"] == ["scorer 2+abc → 3+new"]
    assert task["verdict"] == "B is better"


def test_policies_and_agent_with_policy_can_be_named(tmp_path):
    make_runs(tmp_path, A, policy="greedy")
    make_runs(tmp_path, B, policy="mcts")
    make_runs(tmp_path, {0: 0.1, 1: 0.11}, policy="mcts", agent="two")
    assert as_json(tmp_path, "greedy", "one/mcts")["tasks"][0]["verdict"] == "B is better"
    assert as_json(tmp_path, "greedy", "two")["tasks"][0]["verdict"] == "A is better"


@pytest.mark.parametrize("kind", [{}, BITS])
def test_runs_that_are_the_same_to_the_digit_are_called_so(tmp_path, kind):
    make_runs(tmp_path, A, agent="a", **kind)
    make_runs(tmp_path, A, agent="b", **kind)
    (task,) = as_json(tmp_path, "a", "b")["tasks"]
    assert task["verdict"] == "identical in every pair"
    assert task["difference"]["further_seeds"] is None
    assert "-0.0000" not in compare(tmp_path, "a", "b").stdout


def test_one_seed_a_side_cannot_tell(tmp_path):
    make_run(tmp_path, 0, 0.5, agent="a")
    make_run(tmp_path, 0, 0.6, agent="b")
    make_run(tmp_path, 1, 0.6, agent="c")
    assert "1 further seed" in compare(tmp_path, "a", "b").stdout
    assert "too few seeds" in compare(tmp_path, "a", "c").stdout


def test_a_name_that_is_not_there_names_the_nearest(tmp_path):
    make_runs(tmp_path, A, agent="opus-4.5")
    done = compare(tmp_path, "opus-4.5", "opus-45", code=2)
    assert "'opus-4.5' (one of: " in done.stderr
    done = compare(tmp_path, "greedy", "greedy", "--across", "scroer", code=2)
    assert "'scorer' (one of: " in done.stderr
