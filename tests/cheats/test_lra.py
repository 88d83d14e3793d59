"""Cheats on the mechanism tasks: each is caught, and each would have gained where it says so.

A few of them in the default suite, and all by ``make test-slow``.
"""

import pytest

from cheats.corpus import Bench, scripts
from cheats.mechanisms import LEAST_GAIN, SAME, filled, judge
from tasks.spec import all_tasks

CHEATS = scripts("lra")
OFTEN = {"labels_smuggled", "cap_by_hidden_weights"}


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, id=script.name, marks=[] if script.name in OFTEN else pytest.mark.slow)
        for script in CHEATS
    ],
)
def test_a_cheat_is_caught_and_would_have_gained(mechanisms, isolating, unisolated, script):
    case = judge(mechanisms(isolating), script, unisolated=unisolated)
    print(f"{script.name}: {case.score.reason}, {case.stopped_behind or 'gains'}, {case.gain:+.2f}")
    assert case.twin.valid, case.twin.message
    assert case.score.reason in script.caught_by, (case.score.reason, case.score.message)
    if "BEHIND" in script.constants:
        assert case.stopped_behind in (script.constants["BEHIND"] or ("",)), case.unruled.message
    if script.gain_shows != "in principle":
        assert case.gain >= LEAST_GAIN, (case.naive.reason, case.naive.message)


@pytest.mark.slow
def test_memorised_seeds_gain_nothing_under_a_private_key(
    mechanisms, isolating, monkeypatch, tmp_path
):
    """The text is not looked at: what stops the cheat is that the rows are others."""
    (script,) = (s for s in CHEATS if s.name == "seeds_memorised")
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


@pytest.mark.parametrize("task", [t for t in all_tasks().values() if t.name.startswith("lra/")])
def test_no_reference_design_is_accused_by_its_text(task):
    from scorers.submission import CONSTANTS_LIMIT, read

    for design in task.designs():
        reading = read(task, "test", design.files)
        assert [audit.name for audit in reading.audits] == ["mechanism only", "constants"]
        assert reading.audits[1].value < CONSTANTS_LIMIT / 2, design.name
