"""What a sweep's dry run says, compared with numbers worked out by hand."""

import json
from dataclasses import replace

import pytest

from harness.base.errors import ConfigError
from harness.core.model import Usage
from harness.sweeps import plan as plans
from harness.sweeps import words
from harness.sweeps.agent_info import FREE, AgentInfo, offer
from harness.sweeps.estimate import StepCost, estimate, wall_s
from harness.sweeps.sweep import Sweep
from tasks.spec import Task, find_task

SUITE = """
format = 1
name = "costs"
[defaults]
tasks = ["toy"]
profile = "test"
hours = 1
steps = 100
[[groups]]
agents = ["priced", "gratis"]
seeds = 3
[[groups]]
agents = ["priced"]
policies = ["one_shot"]
seeds = 2
[assume]
share_of_limits = 0.5
evaluation_s = 700
[assume.policies.greedy]
tokens_in = 10_000
tokens_cached = 4_000
tokens_out = 2_000
write_s = 60
[assume.policies.one_shot]
tokens_in = 1_000
tokens_out = 500
write_s = 40
"""


def price(usage: Usage) -> float:
    """Return dollars, at $2 per million input tokens, $0.50 cached and $10 output."""
    millions = 2 * usage.input_tokens + 0.5 * usage.cached_tokens + 10 * usage.output_tokens
    return millions / 1e6


OFFERS = {
    "priced": AgentInfo(provider="p", price=price, retires="2026-12-11"),
    "unpriced": AgentInfo(provider="q", price=lambda usage: None),
    "shut": AgentInfo(provider="p", price=price, obstacle="agent shut was shut on 2026-03-09"),
    "keyless": AgentInfo(provider="p", price=price, unready="agent keyless needs P_KEY"),
}


def make(tmp_path, text=SUITE):
    file = tmp_path / "costs.toml"
    file.write_text(text)
    return plans.make_plan(file, tmp_path / "runs", lambda agent: OFFERS.get(agent, FREE))


def test_hours_tokens_and_dollars_follow_from_what_the_suite_assumes(tmp_path):
    # An evaluation takes half of 20 + 20 s, which is 20 s. A greedy step with a model takes 80 s,
    # so 45 steps begin within the hour, before the final evaluation. Without a model: 100 x 20 s.
    said = words.plan_as_json(make(tmp_path), 2, 0)
    greedy, gratis, one_shot = said["agents"]
    assert (greedy["agent"], greedy["runs"], greedy["steps"]) == ("priced greedy", 3, 135)
    assert greedy["hours"] == pytest.approx(3 * (45 * 80 + 20) / 3600)
    assert (greedy["tokens_in"], greedy["tokens_out"]) == (1_350_000, 270_000)
    # A step costs 6,000 x 2 + 4,000 x 0.5 + 2,000 x 10 = 34,000 millionths of a dollar.
    assert greedy["dollars"] == pytest.approx(135 * 0.034)
    assert (gratis["steps"], gratis["tokens_in"], gratis["dollars"]) == (300, 0, 0.0)
    assert gratis["hours"] == pytest.approx(3 * (100 * 20 + 20) / 3600)
    assert (one_shot["runs"], one_shot["steps"]) == (2, 2)
    assert one_shot["dollars"] == pytest.approx(2 * (1_000 * 2 + 500 * 10) / 1e6)
    assert said["total"]["runs"] == 8
    assert said["total"]["dollars"] == pytest.approx(4.59 + 0.014)
    assert said["total"]["gpu_hours"] == 0.0


def test_wall_clock_is_that_of_starting_in_order_in_the_first_free_slot(tmp_path):
    # Runs of 3620, 2020 and 80 s (one_shot: 60 + 20) for each of 3 seeds; the last has no one_shot.
    # Slot 1: 3620 s; then 2020 s, begun at 3620; 80 s, begun at 5640; 3620 s, begun at 5720.
    # Slot 2: 2020 s; then 80 s, begun at 2020; 3620 s, begun at 2100; 2020 s, begun at 5720.
    plan = make(tmp_path)
    assert [e.seconds for e in plan.estimates] == [3620, 2020, 80, 3620, 2020, 80, 3620, 2020]
    assert wall_s(plan.estimates, 1, 0) == sum(e.seconds for e in plan.estimates)
    assert wall_s(plan.estimates, 2, 0) == 5720 + 3620
    assert wall_s(plan.estimates, 100, 0) == 3620


def test_wall_clock_is_no_less_than_what_all_gpus_have_to_do(tmp_path):
    plan = make(tmp_path)
    on_gpus = [replace(e, gpu_seconds=e.seconds / 2) for e in plan.estimates]
    whole = sum(e.seconds for e in plan.estimates) / 2
    assert [wall_s(on_gpus, 100, gpus) for gpus in (0, 1, 2)] == [3620, whole, whole / 2]
    assert wall_s(on_gpus, 2, 2) == 5720 + 3620


def test_unknown_prices_are_counted_apart_and_never_zero(tmp_path):
    plan = make(tmp_path, SUITE.replace('"gratis"]', '"unpriced", "gratis"]'))
    total = words.plan_as_json(plan, 1, 0)["total"]
    assert total["unpriced"] == ["unpriced"]
    assert total["dollars"] == pytest.approx(4.59 + 0.014)
    table = "\n".join(words.plan_table(plan, 1, 0, None))
    assert "at least $4.60; 1 model of unknown price: unpriced" in table
    assert "≥" in table
    with pytest.raises(ConfigError, match=r"the price of unpriced is unknown[\s\S]*input_tokens"):
        plans.refuse_unknown_prices(plan, 10.0)
    plans.refuse_unknown_prices(make(tmp_path), 10.0)


def without_guesses(*policies):
    """Return the suite without its assumptions about these policies."""
    text = SUITE
    for policy in policies:
        head, _, rest = text.partition(f"[assume.policies.{policy}]")
        text = head + (f"[{rest.partition('[')[2]}" if "[" in rest else "")
    return text


def test_tokens_that_the_suite_does_not_guess_are_unknown_and_never_zero(tmp_path):
    plan = make(tmp_path, without_guesses("greedy", "one_shot"))
    said = words.plan_as_json(plan, 1, 0)
    for part in (said["total"], said["agents"][0]):
        assert (part["tokens_in"], part["tokens_out"], part["dollars"]) == (None, None, None)
    assert said["total"]["unguessed"] == ["greedy", "one_shot"]
    assert said["total"]["unpriced"] == []
    # An agent that calls no model is known to cost nothing.
    assert (said["agents"][1]["agent"], said["agents"][1]["dollars"]) == ("gratis greedy", 0.0)
    table = words.plan_table(plan, 1, 0, 5.0)
    assert not any("$0" in line for line in table)
    priced = next(line for line in table if line.startswith("priced greedy"))
    assert priced.split()[-3:] == ["unknown", "unknown", "unknown"]
    assert priced.count("≥") == 2  # h/run and hours lack the writing; GPU-h does not
    assert next(line for line in table if line.startswith("gratis")).split()[-3:] == ["0", "0", "0"]
    assert "dollars: unknown" in table
    assert any("guesses no tokens for greedy, one_shot" in line for line in table)
    assert any("at least" in line and "by the clock" in line for line in table)
    # Its price is known, so a limit of dollars can be enforced.
    plans.refuse_unknown_prices(plan, 10.0)


def test_what_one_policy_lacks_makes_the_sum_a_lower_bound(tmp_path):
    plan = make(tmp_path, without_guesses("one_shot"))
    total = words.plan_as_json(plan, 1, 0)["total"]
    assert total["dollars"] == pytest.approx(4.59)
    assert (total["tokens_in"], total["at_least_runs"]) == (1_350_000, 2)
    table = "\n".join(words.plan_table(plan, 1, 0, None))
    assert "at least $4.59" in table
    assert "≥ 4.59" in table
    assert "≥ 1.35" in table


def test_a_small_sum_is_not_rounded_to_nothing(tmp_path):
    text = SUITE.replace("steps = 100", "steps = 1").replace("seeds = 3", "seeds = 1")
    table = words.plan_table(make(tmp_path, text.replace("10_000", "5_000")), 1, 0, None)
    one_shot = next(line for line in table if line.startswith("priced one_shot"))
    assert "0.002" in one_shot  # 2 x 1,000 tokens, in millions
    assert " 0.01 " in one_shot + " "


@pytest.mark.parametrize(
    ("spent", "unpriced", "limit", "said"),
    [
        (0.0, True, None, "unknown dollars spent"),
        (3.2, True, None, "≥ $3.20 spent"),
        (3.2, False, 10.0, "$3.20 of $10.00 spent"),
        (0.0, False, None, "1 runs: 1 done"),
    ],
)
def test_how_far_a_sweep_is_says_what_is_not_known_of_its_dollars(
    tmp_path, spent, unpriced, limit, said
):
    plan = make(tmp_path)
    sweep = Sweep(plan, concurrent=1, max_dollars=limit, say=lambda line: None)
    sweep.slots = sweep.slots[:1]
    slot = sweep.slots[0]
    slot.state, slot.spent, slot.unpriced = "done", spent, unpriced
    assert words.status_line(sweep).endswith(said)
    found = words.as_json(sweep)
    assert found["runs"][0]["dollars"] == (None if unpriced else spent)
    assert found["unpriced_runs"] == int(unpriced)


def test_what_is_not_here_is_named_and_counted_and_refused_before_anything_starts(tmp_path):
    text = SUITE.replace('["toy"]', '["toy", "lra/nonesuch"]').replace('"gratis"', '"shut"')
    plan = make(tmp_path, text)
    table = "\n".join(words.plan_table(plan, 1, 0, None))
    assert "8 runs cannot be made: task lra/nonesuch is not here yet" in table
    assert "6 runs cannot be made: agent shut was shut on 2026-03-09" in table
    assert "priced retires: 2026-12-11" in table
    # For a task that is not here, the suite's own seconds count: 700 + 60 for a greedy step.
    absent = [e for e in plan.estimates if e.run.asked.task != "toy"]
    assert {e.seconds for e in absent} == {5 * 760 + 700, 740 + 700}
    with pytest.raises(ConfigError, match="--skip-missing"):
        plans.refuse_obstacles(plan.obstacles(0))
    left = plan.without(plan.obstacles(0))
    assert {(e.run.asked.task, e.run.asked.agent) for e in left.estimates} == {("toy", "priced")}
    plans.refuse_obstacles(left.obstacles(0))


def test_a_missing_key_or_gpu_stops_a_sweep_but_not_a_dry_run(tmp_path):
    plan = make(tmp_path, SUITE.replace('"gratis"', '"keyless"'))
    assert plan.missing == {}
    assert set(plan.obstacles(0).values()) == {("agent keyless needs P_KEY",)}
    gpu = make(tmp_path, SUITE.replace('"toy"', '"lra/listops"').replace('"test"', '"short"'))
    assert gpu.missing == {}
    assert len(gpu.obstacles(0)) == 8
    assert gpu.obstacles(1) == {}
    total = words.plan_as_json(gpu, 1, 0)["total"]
    assert 0 < total["gpu_hours"] < total["hours"], "a GPU is held while it evaluates only"


def test_a_profile_or_policy_that_does_not_exist_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="'test'"):
        make(tmp_path, SUITE.replace('profile = "test"', 'profile = "tset"'))
    with pytest.raises(ConfigError, match="'one_shot'"):
        make(tmp_path, SUITE.replace('["one_shot"]', '["one_shoot"]'))


def finished(folder, agent, *, total, nodes, final, scored, queued=0.0):
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text("")
    result = {
        "format": 1, "task": "toy", "profile": "test", "agent": agent, "policy": "greedy",
        "valid": True, "metric": "accuracy", "score": 0.5,
        "nodes": {"scored": scored, "valid": scored},
        "seconds": {"total": total, "nodes": nodes, "final": final},
        "spent": {"gpu_hours": 0.0, "queued_s": queued, "model": {}, "lost": {}},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))


def test_measured_steps_replace_assumed_ones(tmp_path):
    runs = tmp_path / "runs"
    # Steps take 10 and 30 s, of which 5 and 15 s are evaluations: the means are 20 and 10 s.
    finished(runs / "a", "priced", total=46, nodes=20, final=6, scored=4)
    # The time that it waited for GPUs is not counted.
    finished(runs / "b", "priced", total=6066, nodes=30, final=6, scored=2, queued=6000)
    (runs / "c").mkdir()
    (runs / "c" / "run.toml").write_text("")
    (runs / "c" / "result.json").write_text('{"nodes": []}')
    plan = make(tmp_path)
    priced, gratis, one_shot = plan.estimates[:3]
    assert (priced.measured, priced.steps, priced.seconds) == (2, 100, 100 * 20 + 10)
    # Another agent writes at another speed: of these runs, only the evaluation time counts for it.
    assert (gratis.measured, gratis.seconds) == (2, 100 * 10 + 10)
    assert one_shot.seconds == (10 + 40) + 10
    assert "seconds of 8 runs as measured" in "\n".join(words.plan_table(plan, 1, 0, None))


def test_a_key_of_blanks_is_no_key(monkeypatch):
    for value, unready in (("", True), ("  ", True), ("sk-1", False)):
        monkeypatch.setenv("ANTHROPIC_API_KEY", value)
        assert bool(offer("opus-4.5").unready) is unready


def test_what_cannot_be_blind_is_named_before_a_sweep_begins(tmp_path):
    plan = make(tmp_path, SUITE.replace("seeds = 3", "seeds = 3\nblind = true"))
    counts = dict(plans.by_count(plan.missing))
    assert counts == {
        "task toy cannot be blind": 6,
        "agent gratis asks no model, so it cannot be blind": 3,
    }
    assert "priced greedy, blind" in "\n".join(words.plan_table(plan, 1, 0, None))


def test_a_stated_evaluation_is_taken_before_a_share_of_the_limits_and_said(tmp_path):
    stated = find_task("compose/mad").profile("paper").evaluation
    text = SUITE.replace('["toy"]', '["compose/mad"]').replace('"test"', '"paper"')
    plan = make(tmp_path, text)
    (gratis, *_) = [e for e in plan.estimates if e.run.asked.agent == "gratis"]
    # A step without a model is an evaluation; those that begin within an hour, and the final one.
    steps = -(-3600 // stated.seconds)
    assert gratis.steps == min(100, steps)
    assert gratis.seconds == pytest.approx((gratis.steps + 1) * stated.seconds)
    line = f"compose/mad paper: {stated.seconds:g} s an evaluation ({stated.basis})"
    assert words.plan_table(plan, 1, 0, None).count(line) == 1
    assert words.plan_as_json(plan, 1, 0)["stated"] == [line]
    other = make(tmp_path)
    assert words.plan_as_json(other, 1, 0)["stated"] == []
    # What was measured here goes before what is stated.
    place = ("compose/mad", "paper")
    run = plan.estimates[0].run
    known = {place: StepCost(5.0, 5.0, 2)}
    task = find_task("compose/mad")
    measured = estimate(run, plan.suite, task, known, OFFERS["priced"])
    assert (measured.measured, measured.stated) == (2, "")
    assert measured.seconds == measured.steps * 65 + 5


def test_what_a_profile_states_is_no_part_of_the_tasks_hash():
    task = find_task("compose/mad")
    profile = task.profile("paper").model_copy(update={"evaluation": None})
    profiles = {**task.definition.profiles, "paper": profile}
    silent = Task(task.folder, task.definition.model_copy(update={"profiles": profiles}), "fixed")
    assert silent.profile("paper").evaluation is None
    assert silent.hash("paper") == task.hash("paper")
