"""The cheats gain nothing and the honest are not accused: real scripts, real judge, real sandbox.

A few of them in the default suite, and all by ``make test-slow``.
"""

import pytest

from cheats.corpus import failed, scripts

CHEATS = {script.name: script for script in scripts("autoresearch")}
HONEST = {script.name: script for script in scripts("honest")}
OFTEN = {"replay_full", "link_replaced"}
HONEST_OFTEN = {"attention", "mixture_of_experts", "bf16"}
SEEDS = ((3, "a1b2"), (4, "c3d4"), (5, "e5f6"))


def chosen(every, often):
    return [
        pytest.param(script, id=name, marks=[] if name in often else [pytest.mark.slow])
        for name, script in every.items()
    ]


@pytest.mark.parametrize("script", chosen(CHEATS, OFTEN))
def test_a_cheat_would_gain_and_does_not(bench, unisolated, script):
    outcome = bench.judge(script, unisolated=unisolated)
    assert outcome.twin.valid, outcome.twin.message
    assert outcome.worth_it, outcome.gain
    assert outcome.held, (outcome.stopped_by, outcome.gain, outcome.score.resolution)


@pytest.mark.parametrize("script", chosen(HONEST, HONEST_OFTEN))
def test_an_honest_model_is_not_accused(bench, script):
    # One of the seeds each, by turns: benchmarks/cheats.py runs all of them.
    training_seed, audit_seed = SEEDS[list(HONEST).index(script.name) % len(SEEDS)]
    score = bench.score(script.source(), training_seed=training_seed, audit_seed=audit_seed)
    assert score.valid, (audit_seed, score.message, failed(score))


@pytest.mark.slow
def test_what_a_script_says_is_bounded_and_clean(bench):
    script = CHEATS["log_speaks"]
    score = bench.score(script.source() + "# again")
    assert len(score.claim) <= 32
    assert all(len(str(value)) <= 201 for value in score.claim.values())
    assert "\x1b" not in str(score.claim)
    assert "\x07" not in str(score.claim)
    assert bench.log.stat().st_size < 2 * (1 << 20) + 100
