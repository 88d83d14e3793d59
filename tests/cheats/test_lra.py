"""Tests that cheats on the mechanism tasks are caught, and that they gain where their GAIN says.

The default suite judges the cheats that the rules on the text stop. CI judges one cheat of each
kind in full, and ``make nightly`` judges all of them so.
"""

import pytest

from cheats.corpus import Bench, scripts
from cheats.mechanisms import LEAST_GAIN, SAME, filled, judge
from cheats.turns import by_turns
from tasks.spec import all_tasks

pytestmark = pytest.mark.timeout(600)  # several evaluations, on a busy machine

CHEATS = {script.name: script for script in scripts("lra")}
IN_CI = {"batch_neighbours", "cap_by_hidden_weights", "hidden_rows_read", "seeds_memorised"}
IN_TEXT = {name: script for name, script in CHEATS.items() if "BEHIND" in script.constants}


def test_there_is_one_of_each_kind_before_the_night():
    kinds = {name: script.caught_by for name, script in CHEATS.items()}
    assert sorted(kinds[name] for name in IN_CI) == sorted(set(kinds.values()))
    assert {"unruled", "unisolated"} <= {CHEATS[name].gain_shows for name in IN_CI}


@pytest.mark.parametrize("name", by_turns(CHEATS, IN_CI))
def test_a_cheat_is_caught_and_would_have_gained(mechanisms, isolating, unisolated, name):
    script = CHEATS[name]
    case = judge(mechanisms(isolating), script, unisolated=unisolated)
    print(f"{name}: {case.score.reason}, {case.stopped_behind or 'gains'}, {case.gain:+.2f}")
    assert case.twin.valid, case.twin.message
    assert case.score.reason in script.caught_by, (case.score.reason, case.score.message)
    if "BEHIND" in script.constants:
        assert case.stopped_behind in (script.constants["BEHIND"] or ("",)), case.unruled.message
    if script.gain_shows != "in principle":
        assert case.gain >= LEAST_GAIN, (case.naive.reason, case.naive.message)


@pytest.mark.parametrize("name", IN_TEXT)
def test_what_a_text_shows_is_caught_before_it_runs(mechanisms, isolating, name):
    bench = mechanisms(isolating)
    score = bench.score(filled(CHEATS[name].source(), bench))
    assert score.reason in CHEATS[name].caught_by, (score.reason, score.message)


@pytest.mark.nightly
def test_memorised_seeds_gain_nothing_under_a_private_key(
    mechanisms, isolating, monkeypatch, tmp_path
):
    """Without the rules on the text: the cheat fails because a private key draws other rows."""
    script = CHEATS["seeds_memorised"]
    public = mechanisms(isolating)
    monkeypatch.setenv("HARNESS_HIDDEN_KEY", "5a" * 32)
    private = Bench(tmp_path, isolating, task="lra/listops", settings=public.settings)
    gains = {}
    for name, bench in (("public", public), ("private", private)):
        twin = bench.score(script.twin())
        cheat = bench.score(filled(script.source(), bench), ruled=False)
        assert twin.valid, twin.message
        assert cheat.valid, cheat.message
        gains[name] = cheat.score - twin.score
    print(gains)
    assert gains["public"] >= LEAST_GAIN
    assert abs(gains["private"]) <= SAME


def test_no_reference_design_is_accused_by_its_text():
    from scorers.submission import CONSTANTS_LIMIT, read

    # Most tasks share most of their designs.
    designs = {
        tuple(design.files.items()): (task, design)
        for task in all_tasks().values()
        if task.name.startswith("lra/")
        for design in task.designs()
    }
    assert len(designs) > 10
    for task, design in designs.values():
        reading = read(task, "test", design.files)
        assert [audit.name for audit in reading.audits] == ["mechanism only", "constants"]
        assert reading.audits[1].value < CONSTANTS_LIMIT / 2, design.name
