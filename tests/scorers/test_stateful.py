"""Dishonest servers and their honest twins: a row's logits depend on the row alone."""

import numpy as np
import pytest

from scorers import audits

HALF = """
import numpy as np
def honest(tokens):
    known = np.where(tokens[:, 0] <= 2, tokens[:, 0] - 1, 0)
    return np.eye(4, dtype=np.float32)[known] * 3
"""

STATEFUL = {
    "looks at the mean of its batch": "def predict(t): return honest(t) + np.float32(t.mean())",
    "looks at its neighbour": (
        "def predict(t): return honest(t) + 0.1 * np.roll(honest(t), 1, axis=0)"
    ),
    "answers differ by batch size": "def predict(t): return honest(t) * (1 if len(t) > 8 else 2)",
    "learns the marginal while it serves": (
        "seen = np.zeros(4, np.float32)\n"
        "def predict(t):\n"
        "    global seen\n"
        "    seen = seen + honest(t).sum(axis=0)\n"
        "    return honest(t) - seen / seen.sum()"
    ),
    "drifts slowly": (
        "n = 0\ndef predict(t):\n    global n\n    n += 1\n"
        "    return honest(t) + np.float32(n * 0.01)"
    ),
    "counts positions": (
        "n = 0\ndef predict(t):\n    global n\n    x = honest(t)\n"
        "    x[:, 0] += (n + np.arange(len(t))) % 7\n    n += len(t)\n    return x"
    ),
    "draws dice": "def predict(t): return honest(t) + np.random.rand(len(t), 4).astype('f4')",
}

HONEST = {
    "plain": "predict = honest",
    "huge logits": "def predict(t): return honest(t) * np.float32(1e6)",
    "tiny logits": "def predict(t): return honest(t) * np.float32(1e-6)",
    "rounds like a batched kernel": (
        "def predict(t):\n"
        "    rng = np.random.default_rng(len(t))\n"
        "    return honest(t) * (1 + 1e-6 * rng.standard_normal((len(t), 4)).astype('f4'))"
    ),
    "all the same": "def predict(t): return np.zeros((len(t), 4), np.float32)",
    "double precision": "def predict(t): return honest(t).astype('f8')",
}


@pytest.mark.parametrize("name", STATEFUL)
def test_a_memory_or_a_look_at_the_batch_is_caught(score_toy, name):
    score = score_toy(HALF + STATEFUL[name])
    assert score.reason == "stateful", score.message
    assert "asked again in request" in score.message


@pytest.mark.parametrize("name", HONEST)
def test_honest_twins_pass(score_toy, name):
    for seed in ("a", "b", "c"):
        score = score_toy(HALF + HONEST[name], audit_seed=seed)
        assert score.valid, score.message


def test_every_row_is_asked_once_and_audits_only_ask_again():
    for rows, size in ((400, 64), (2000, 64), (5, 64), (1, 1), (65, 64), (128, 1)):
        for seed in range(20):
            plan = audits.plan(rows, size, np.random.default_rng(seed))
            first = np.concatenate([b.rows for b in plan if b.first])
            assert sorted(first) == list(range(rows))
            seen: set[int] = set()
            repeats = 0
            for batch in plan:
                assert 1 <= len(batch.rows) <= size
                if batch.first:
                    seen |= set(batch.rows.tolist())
                else:
                    assert set(batch.rows.tolist()) <= seen, (rows, size, seed)
                    repeats += len(batch.rows)
            assert repeats >= min(rows, 64)


def test_plans_differ_between_audit_seeds_in_order_and_composition():
    one, two = (audits.plan(400, 64, np.random.default_rng(s)) for s in (1, 2))
    assert [b.rows.tolist() for b in one] != [b.rows.tolist() for b in two]


def test_the_trend_audit_sees_learning_and_keeps_its_false_alarm_rate():
    rng = np.random.default_rng(0)
    flat = [audits.trend(rng.random(2000) < 0.4).value for _ in range(2000)]
    assert np.std(flat) == pytest.approx(1.0, abs=0.05)
    assert max(np.abs(flat)) < audits.TREND_LIMIT
    rising = rng.random(2000) < np.linspace(0.3, 0.6, 2000)
    assert not audits.trend(rising).passed
    assert audits.trend(np.ones(50, bool)).passed
