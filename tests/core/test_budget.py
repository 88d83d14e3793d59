"""Budgets: what counts, what is left, what is used up; no order of calls exceeds a limit."""

import random
import threading

import pytest

from harness.base.errors import ConfigError
from harness.core.asked import Asked
from harness.core.budget import (
    Budget,
    BudgetLimits,
    Reservation,
    RunProgress,
    Tally,
    refuse_unknown_price,
)
from harness.core.model import BudgetSpent, Usage
from harness.core.tree import Node, Tree
from harness.store.journal import Event
from harness.store.state import how_far

NEVER = threading.Event()


def at(steps: int = 0, active_s: float = 0.0, **more: float) -> RunProgress:
    return RunProgress(steps, active_s, **{"evaluated_s": 0.0, **more})


def hold(tokens_in: int = 0, tokens_out: int = 0, dollars: float | None = 0.0) -> Reservation:
    return Reservation(Usage(input_tokens=tokens_in, output_tokens=tokens_out), dollars)


def test_each_budget_that_is_used_up_is_named():
    limits = BudgetLimits(steps=3, time_s=60, gpu_hours=0.5)
    budget = Budget(limits, gpus=1)
    assert budget.spent(at(2, 59, evaluated_s=1799)) == ""
    assert budget.spent(at(3)) == "3 of 3 steps are used"
    assert "60 seconds" in budget.spent(at(0, 60))
    assert "0.5 of 0.5 GPU-hours" in budget.spent(at(evaluated_s=1800))
    assert Budget(limits, gpus=0).spent(at(evaluated_s=10**6)) == ""
    budget = Budget(BudgetLimits(dollars=1.0))
    budget.count("paid", Usage(), 1.0, worst_dollars=1.0)
    assert "dollars" in budget.spent(at())


def test_no_limit_is_never_used_up_and_nothing_is_left_of_it():
    budget = Budget(BudgetLimits())
    budget.count("paid", Usage(10**9, output_tokens=10**9), 1e6)
    assert budget.spent(at(10**6, 1e9)) == ""
    assert budget.left(at(10**6, 1e9)) == {}


@pytest.mark.parametrize(("charge_waiting", "expected"), [(False, 65), (True, 105)])
def test_waiting_for_providers_and_gpus_is_no_time_unless_it_is_asked_for(charge_waiting, expected):
    limits = BudgetLimits(time_s=100, charge_waiting=charge_waiting)
    budget = Budget(limits, workers=2)
    budget.count("paid", Usage(), None, 5.0, 40.0)
    budget.count_failure(20.0)
    progress = at(active_s=100, queued_s=10, queued_before_s=5)
    assert budget.time_s(progress) == expected
    assert bool(budget.spent(progress)) is charge_waiting
    assert budget.to_json(progress)["waited_s"] == 60
    assert budget.to_json(progress)["queued_s"] == 15


def test_a_runs_progress_leaves_the_final_retraining_out():
    tree = Tree()
    tree.add(Node(0, "draft", (), state="scored", seconds=30.0))
    tree.add(Node(1, "draft", (), state="written", seconds=0.0))
    events = [
        Event("opened", 0.0, "", {"queued_s": 7.0}),  # written by an older harness
        Event("scored", 30.0, "", {"queued_s": 2.0}),
        Event("ungraded", 30.0, "", {"queued_s": 0.5}),
        Event("finalizing", 40.0, "", {}),
        Event("opened", 45.0, "", {}),
        Event("final", 60.0, "", {"queued_s": 9.0}),
    ]
    assert how_far(events, tree, 90.0) == RunProgress(2, 40.0, 30.0, 2.5, 7.0)
    assert how_far(events[:2], tree, 35.0, waiting_s=1.0) == RunProgress(2, 35.0, 30.0, 3.0, 7.0)


def test_replayed_calls_are_counted_and_charged_to_nobody():
    budget = Budget(BudgetLimits(dollars=1.0, output_tokens=10))
    budget.count("replayed", Usage(output_tokens=50), 9.0, worst_dollars=9.0)
    assert budget.left(at()) == {"dollars": 1.0, "output_tokens": 10}
    assert budget.to_json(at())["replayed"]["dollars"] == 9.0


def test_tokens_from_the_providers_cache_count_as_input():
    budget = Budget(BudgetLimits(input_tokens=100))
    budget.count("paid", Usage(10, cached_tokens=50, cache_write_tokens=20), 0.0)
    assert budget.left(at()) == {"input_tokens": 20}


def test_a_sum_with_an_unknown_price_is_unknown_and_its_worst_case_is_charged():
    tally = Tally()
    tally.add(Usage(), 0.25, 1.0, 0.0)
    tally.add(Usage(), None, 1.0, 0.0)
    shown = tally.to_json()
    assert (shown["dollars"], shown["dollars_known"], shown["unpriced_calls"]) == (None, 0.25, 1)
    budget = Budget(BudgetLimits(dollars=2.0))
    budget.count("paid", Usage(), None, worst_dollars=1.5)
    assert budget.left(at()) == {"dollars": 0.5}
    with pytest.raises(ConfigError, match="price is unknown"):
        budget.reserve(hold(dollars=None), call="node 0", cancel=NEVER)


def test_a_dollar_limit_needs_a_price_and_no_other_limit_does():
    with pytest.raises(ConfigError, match="price of tiny is unknown") as caught:
        refuse_unknown_price(BudgetLimits(dollars=5), lambda _: None, "tiny")
    assert "agents file" in caught.value.remedy
    refuse_unknown_price(BudgetLimits(dollars=5), lambda _: 0.0, "own GPUs")
    refuse_unknown_price(BudgetLimits(output_tokens=5), lambda _: None, "tiny")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_to_calls_the_worst_case_of_all_never_passes_a_limit(seed):
    rng = random.Random(seed)
    budget = Budget(BudgetLimits(input_tokens=1000, output_tokens=500, dollars=3.0))
    real = {"in": 0, "out": 0, "dollars": 0.0}
    open_holds: list[Reservation] = []
    refused = 0
    for _ in range(300):
        if open_holds and rng.random() < 0.5:
            over = open_holds.pop(rng.randrange(len(open_holds)))
            share = rng.random()
            used = Usage(
                int(over.usage.input_tokens * share), output_tokens=over.usage.output_tokens
            )
            match rng.choice(["settle", "release", "lose"]):
                case "settle":
                    budget.settle(over, used, over.dollars * share, 1.0, 0.0)
                    real["in"] += used.input_tokens
                    real["out"] += used.output_tokens
                    real["dollars"] += over.dollars * share
                case "release":
                    budget.release(over, failed_s=1.0)
                case "lose":
                    budget.lose(over)
                    real["in"] += over.usage.input_tokens
                    real["out"] += over.usage.output_tokens
                    real["dollars"] += over.dollars
            continue
        wanted = hold(rng.randint(0, 60), rng.randint(0, 30), rng.choice([0.0, 0.1, 0.2]))
        room = {
            "in": 1000 - real["in"] - sum(h.usage.input_tokens for h in open_holds),
            "out": 500 - real["out"] - sum(h.usage.output_tokens for h in open_holds),
            "dollars": 3.0 - real["dollars"] - sum(h.dollars for h in open_holds),
        }
        fits = (
            wanted.usage.input_tokens <= room["in"]
            and wanted.usage.output_tokens <= room["out"]
            and wanted.dollars <= room["dollars"] + 1e-9
        )
        if not fits and open_holds:
            continue  # reserve would wait for the open ones
        try:
            budget.reserve(wanted, call="a call", cancel=NEVER)
        except BudgetSpent:
            refused += 1
            assert not fits or wanted.dollars > room["dollars"] - 1e-9
        else:
            assert fits
            open_holds.append(wanted)
    left = budget.left(at())
    assert left["input_tokens"] == 1000 - real["in"]
    assert left["output_tokens"] == 500 - real["out"]
    assert left["dollars"] == pytest.approx(3.0 - real["dollars"], abs=1e-5)
    assert refused


def test_a_run_asked_by_an_older_harness_has_the_limits_it_had():
    old = {
        "format": 1, "task": "toy", "profile": "test", "agent": "reference", "policy": "greedy",
        "steps": 3, "time_s": 60.0, "seed": 0, "sandbox": "auto",
    }  # fmt: skip
    assert Asked.model_validate(old).limits == BudgetLimits(steps=3, time_s=60.0)


@pytest.mark.parametrize("limit", [{"dollars": 0}, {"steps": -1}, {"gpu_hours": -2}, {"hours": 1}])
def test_limits_that_make_no_sense_are_refused(limit):
    with pytest.raises(ValueError, match=next(iter(limit))):
        BudgetLimits(**limit)
