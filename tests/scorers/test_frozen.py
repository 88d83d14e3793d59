"""The strict check: two processes without shared memory show what a memory hides in one process.

In these tests each process is a thread with a model of its own.
"""

import math

import numpy as np
import pytest
from lm import VOCABULARY, make_judge, serve, write_split
from test_language import Replay, peek

from scorers import frozen
from scorers.score import Reason


@pytest.fixture(scope="module")
def folder(tmp_path_factory, language):
    return write_split(tmp_path_factory.mktemp("split") / "search", language, 96, 40_000, 1)


def strictly(folder, tmp_path, make, make_frozen=None):
    """Return the plain and the strict verdict; ``make`` makes a new model for each process.

    ``make_frozen``: makes the exported model of the strict check, if it differs.
    """
    judge = make_judge(folder, strict=tmp_path / "model")
    claim = {"batch_size": 16, "frozen": {"bytes": 5}}
    plain, _ = serve(judge, make(), claim, lend=b"model")
    assert judge.not_frozen == ""
    assert (tmp_path / "model").read_bytes() == b"model"
    halves = judge.halves()
    for half in halves:
        serve(half, (make_frozen or make)(), {"batch_size": 16})
    return plain, judge.strict_verdict(plain, halves)


def test_an_honest_model_has_the_same_score_and_a_finer_resolution(folder, tmp_path, language):
    plain, strict = strictly(folder, tmp_path, lambda: language.logits)
    assert plain.failed is strict.failed is None
    assert strict.score == pytest.approx(plain.score, abs=1e-6)
    assert strict.strict == frozen.HELD
    assert strict.resolution < plain.resolution / 2
    assert {a.name: a.value for a in strict.audits if a.name.startswith("frozen")} == {
        "frozen repeats": 0,
        "frozen repeats mean": 0,
        "frozen twins": 0,
        "frozen twins lean": 0,
    }


def test_its_resolution_is_what_the_halves_show_in_bits_per_byte(
    folder, tmp_path, language, monkeypatch
):
    real = frozen.HalvesPlan.compare
    monkeypatch.setattr(frozen.HalvesPlan, "compare", lambda *of: (real(*of)[0], 4 * np.log(2)))
    _, strict = strictly(folder, tmp_path, lambda: language.logits)
    assert strict.resolution == pytest.approx(1)  # at 4 bytes a token


def test_a_look_ahead_that_hides_behind_its_memory_is_seen_at_any_weight(
    folder, tmp_path, language
):
    plain, strict = strictly(folder, tmp_path, lambda: Replay(peek(language, 0.004)))
    assert plain.failed is None  # too weak to be detected in one process
    assert strict.failed is Reason.LOOKS_AHEAD


def test_learning_that_answers_old_rows_as_before_is_seen(folder, tmp_path, language):
    class Learner:
        """A good model that adds what it slowly learns while serving."""

        def __init__(self):
            self.counts = np.full((VOCABULARY, VOCABULARY), 5.0)

        def __call__(self, tokens):
            learned = np.log(self.counts / self.counts.sum(axis=1, keepdims=True))[tokens]
            np.add.at(self.counts, (tokens[:, :-1], tokens[:, 1:]), 1)
            return (language.logits(tokens) + 0.3 * learned).astype(np.float32)

    plain, strict = strictly(folder, tmp_path, lambda: Replay(Learner()))
    assert plain.failed is None
    assert strict.failed is Reason.STATEFUL


def test_the_score_is_the_exported_models_whatever_the_other_process_answered(
    folder, tmp_path, language
):
    plain, strict = strictly(
        folder, tmp_path, lambda: Replay(peek(language, 0.004)), lambda: language.logits
    )
    honest, _ = serve(make_judge(folder), language.logits, {"batch_size": 16})
    assert plain.score < honest.score
    assert strict.score == pytest.approx(honest.score, abs=1e-6)


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        ({}, "the submission said nothing of it"),
        ({"frozen": 7}, "the submission said nothing of it"),
        ({"frozen": {"error": "it counts in a dictionary"}}, "it counts in a dictionary"),
        ({"frozen": {"bytes": -1}}, "what it lent is no file"),
        ({"frozen": {"bytes": True}}, "what it lent is no file"),
        ({"frozen": {"bytes": 101}}, "what it lent is no file"),
    ],
)
def test_what_is_said_of_a_frozen_model_is_not_believed(claim, why):
    assert frozen.taken(claim, 100) == (0, why)


def test_a_half_fills_its_last_batch_and_is_complete(folder, tmp_path, language):
    judge = make_judge(folder, strict=tmp_path / "model")
    judge.batch_size = 17
    half = judge.halves()[0]
    verdict, _ = serve(half, language.logits, {})
    assert np.isfinite(half.nats).all()
    assert math.isnan(verdict.score)
    assert verdict.failed is None
