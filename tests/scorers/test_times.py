"""How training and serving are timed and limited, by a clock that only the tests advance."""

import numpy as np
import pytest
from lm import Language2, make_judge, serve, write_split

from scorers import classification, judge, language, wire
from scorers.classification import Classification
from scorers.judge import ServeLate, Times
from scorers.language import AuditSizes
from scorers.wire import Late

SPAWNED = 5.0


class Clock:
    """A clock that stands still until a test advances it."""

    now = SPAWNED

    def monotonic(self):
        return self.now

    def sleep(self, _seconds):
        """Do nothing: pauses take no time on this clock."""


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (wire, judge, classification, language):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture(params=["classifier", "language model"])
def judged(request, tmp_path, clock):
    """Return a function that judges a candidate whose answers take ``first`` or ``then`` seconds.

    Limits: 100 s until the first answer, 10 s from it to the last. The function returns the verdict
    and the number of answers.
    """
    if request.param == "classifier":
        np.save(tmp_path / "tokens.npy", np.ones((400, 8), np.uint8))
        np.save(tmp_path / "labels.npy", np.ones(400, np.uint8))
        examiner, claim = Classification(tmp_path, 4, audit_seed="a"), {}
        honest = lambda tokens: np.zeros((len(tokens), 4), np.float32)  # noqa: E731
    else:
        chain = Language2()
        write_split(tmp_path / "search", chain, 16, 3000, seed=1)
        sizes = AuditSizes(audit_rows=8, gap=8, twins=2, repeats=3)
        examiner, claim = make_judge(tmp_path / "search", sizes), {"batch_size": 4}
        honest = chain.logits

    def run(first, then):
        answers = 0

        def predict(tokens):
            nonlocal answers
            clock.now += first if answers == 0 else then
            answers += 1
            return honest(tokens)

        verdict, _ = serve(examiner, predict, claim, times=Times(SPAWNED, 100, 10))
        return verdict, answers

    return run


def test_training_ends_with_the_first_answer_and_serving_is_the_rest(judged):
    verdict, answers = judged(first=99, then=0.25)
    assert answers > 5
    assert (verdict.train_s, verdict.serve_s) == (99, 0.25 * (answers - 1))
    assert verdict.judge_s == 0


def test_a_first_answer_after_the_limit_is_late_for_training(judged):
    with pytest.raises(Late):
        judged(first=101, then=0)


def test_serving_has_its_own_limit_whatever_training_left(judged):
    with pytest.raises(ServeLate):
        judged(first=1, then=2.5)


@pytest.mark.parametrize("judged", ["language model"], indirect=True)  # only its judge opens one
def test_the_time_in_which_the_judge_opens_a_buffer_is_nobodys(judged, clock, monkeypatch):
    real = language.Readers.open

    def slow(*args):
        clock.now += 7
        return real(*args)

    monkeypatch.setattr(language.Readers, "open", slow)
    verdict, _ = judged(first=99, then=0)
    assert verdict.train_s == 99
