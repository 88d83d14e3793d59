"""The cheats gain nothing and the honest are not accused: real scripts, real judge, real sandbox.

One of each kind in CI, and all of them by ``make nightly``.
"""

import pytest

from cheats.corpus import failed, scripts
from cheats.turns import by_turns

CHEATS = {script.name: script for script in scripts("autoresearch")}
HONEST = {script.name: script for script in scripts("honest")}

pytestmark = pytest.mark.timeout(600)  # so many evaluations, on a busy machine

IN_CI = {
    "ahead_tiny", "answers_twice", "hard_positions_nan", "link_replaced", "ngram_cache",
    "replay_full", "score_overwritten",
}  # fmt: skip
HONEST_IN_CI = {"mixture_of_experts"}
"""The twins of the cheats are honest, too."""

KINDS = {
    "swap": "looks ahead",
    "prefix": "looks ahead",
    "statelessness": "stateful",
    "trend": "replays",
    "finiteness": "not finite",
    "gains nothing": "claims",
    "interface_error": "is never asked",
    "exited_early": "is never asked",
    "wrong_shape": "breaks the protocol",
    "protocol_error": "breaks the protocol",
    "train_timeout": "takes time",
    "serve_timeout": "takes time",
}
"""By the first of CAUGHT_BY."""

SEEDS = ((3, "a1b2"), (4, "c3d4"), (5, "e5f6"))


def kind(script):
    if "_replay" in script.constants.get("PARTS", ()):
        return "replays"
    return KINDS[script.caught_by[0]]


def test_there_is_one_of_each_kind_before_the_night():
    # What luck is worth takes six runs to show, what the clock is worth is trained for; and a
    # mechanism reaches through a wall for less.
    dear = ("retries", "unisolated", "unlimited")
    kinds = {kind(s) for s in CHEATS.values() if s.gain_shows not in dear}
    assert sorted(kind(CHEATS[name]) for name in IN_CI) == sorted(kinds)


@pytest.mark.parametrize("name", by_turns(CHEATS, IN_CI))
def test_a_cheat_would_gain_and_does_not(bench, unisolated, name):
    outcome = bench.judge(CHEATS[name], unisolated=unisolated)
    assert outcome.twin.valid, outcome.twin.message
    assert outcome.worth_it, outcome.gain
    assert outcome.held, (outcome.stopped_by, outcome.gain, outcome.score.resolution)


@pytest.mark.parametrize("name", by_turns(HONEST, HONEST_IN_CI))
def test_an_honest_model_is_not_accused(bench, name):
    # One of the seeds each, by turns: benchmarks/cheats.py runs all of them.
    training_seed, audit_seed = SEEDS[list(HONEST).index(name) % len(SEEDS)]
    score = bench.score(HONEST[name].source(), training_seed=training_seed, audit_seed=audit_seed)
    assert score.valid, (audit_seed, score.message, failed(score))


@pytest.mark.nightly
def test_what_a_script_says_is_bounded_and_clean(bench):
    script = CHEATS["log_speaks"]
    score = bench.score(script.source() + "# again")
    assert len(score.claim) <= 32
    assert all(len(str(value)) <= 201 for value in score.claim.values())
    assert "\x1b" not in str(score.claim)
    assert "\x07" not in str(score.claim)
    assert bench.log.stat().st_size < 2 * (1 << 20) + 100
