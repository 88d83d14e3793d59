"""Tests that cheats gain nothing and honest models are valid: real scripts, judge and sandbox.

CI runs one cheat of each kind, and ``make nightly`` runs all. ``corpus.py`` builds the scripts.
"""

import pytest

from cheats.corpus import failed, scripts
from cheats.turns import by_turns

CHEATS = {script.name: script for script in scripts("autoresearch")}
HONEST = {script.name: script for script in scripts("honest")}

pytestmark = pytest.mark.timeout(600)  # several evaluations, on a busy machine

IN_CI = {
    "ahead_tiny", "answers_twice", "hard_positions_nan", "link_replaced", "ngram_cache",
    "replay_full", "score_overwritten",
}  # fmt: skip
HONEST_IN_CI = {"mixture_of_experts"}
"""One is enough: the twins of the cheats are honest scripts, too."""

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
"""First name in CAUGHT_BY -> kind of cheat."""

SEEDS = ((3, "a1b2"), (4, "c3d4"), (5, "e5f6"))


def kind(script):
    if "_replay" in script.constants.get("PARTS", ()):
        return "replays"
    return KINDS[script.caught_by[0]]


def test_there_is_one_of_each_kind_before_the_night():
    # Too expensive for CI: "retries" takes six runs, and "unlimited" trains for long. In place of
    # "unisolated", a cheap mechanism of test_lra.py tests the isolation.
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
    # Each model gets one of the SEEDS, in turn; benchmarks/cheats.py runs all of them.
    training_seed, audit_seed = SEEDS[list(HONEST).index(name) % len(SEEDS)]
    score = bench.score(HONEST[name].source(), training_seed=training_seed, audit_seed=audit_seed)
    assert score.valid, (audit_seed, score.message, failed(score))


@pytest.mark.nightly
def test_what_a_script_says_is_bounded_and_clean(bench):
    script = CHEATS["log_speaks"]
    score = bench.score(script.source() + "# again")
    assert len(score.claim) <= 32
    assert all(len(str(value)) <= 201 for value in score.claim.values())
    assert any("owned" in name for name in score.claim)  # what it printed is in the claim
    assert all(str(said).isprintable() for pair in score.claim.items() for said in pair)
    assert bench.log.stat().st_size < 2 * (1 << 20) + 100
