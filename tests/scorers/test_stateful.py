"""Dishonest and honest classifiers: a row's logits must depend on that row alone."""

import numpy as np
import pytest
from lm import serve

from scorers import audits
from scorers.classification import Classification
from scorers.score import Reason

HALF = """
import numpy as np
def honest(tokens):
    known = np.where(tokens[:, 0] <= 2, tokens[:, 0] - 1, 0)
    return np.eye(4, dtype=np.float32)[known] * 3
"""

STATEFUL = {
    "looks at the mean of its batch": (
        "def predict(t): return honest(t) * np.float32(1 + t.mean())"
    ),
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
        "    return honest(t) * np.float32(1 + n * 0.01)"
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


@pytest.fixture
def judged(tmp_path):
    """Return a function that has the real judge examine a source, which runs in a thread."""
    tokens = np.random.default_rng(7).integers(1, 5, (400, 8)).astype(np.uint8)
    np.save(tmp_path / "tokens.npy", tokens)
    np.save(tmp_path / "labels.npy", tokens[:, 0] - 1)

    def run(source, audit_seed="a1b2"):
        module = {}
        exec(HALF + source, module)
        judge = Classification(tmp_path, 4, audit_seed=audit_seed)
        verdict, _ = serve(judge, module["predict"], {})
        return verdict

    return run


@pytest.mark.parametrize("name", STATEFUL)
def test_a_memory_or_a_look_at_the_batch_is_caught(judged, name):
    verdict = judged(STATEFUL[name])
    assert verdict.failed is Reason.STATEFUL, verdict.message
    assert "asked again in request" in verdict.message


LEARNS_AND_REMEMBERS = """
known, n = {}, 0
def predict(t):
    global n
    n += len(t)
    new = honest(t) * np.float32(1 if n > 250 else -1)
    return np.stack([known.setdefault(r.tobytes(), x) for r, x in zip(t, new)])
"""


def test_learning_while_serving_that_answers_old_rows_as_before_is_seen_by_its_rise(judged):
    verdict = judged(LEARNS_AND_REMEMBERS)
    assert [audit.name for audit in verdict.audits if not audit.passed] == ["trend"]
    assert verdict.failed is Reason.TREND
    assert "Accuracy rises while serving" in verdict.message


def test_an_accuracy_and_its_standard_error(judged):
    verdict = judged("predict = honest")
    assert 0.4 < verdict.score < 0.9  # it knows two of four classes; else it answers class 0
    error = np.sqrt(verdict.score * (1 - verdict.score) / 400)
    assert verdict.standard_error == pytest.approx(error)


@pytest.mark.parametrize("name", ["tokens", "labels"])
def test_data_that_would_run_code_when_it_is_read_is_refused(tmp_path, name):
    np.save(tmp_path / "tokens.npy", np.ones((4, 8), np.uint8))
    np.save(tmp_path / "labels.npy", np.ones(4, np.uint8))
    np.save(tmp_path / f"{name}.npy", np.array([print], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Classification(tmp_path, 4, audit_seed="a1b2")


def test_in_a_sandbox_it_is_no_score(score_toy):
    score = score_toy(HALF + STATEFUL["learns the marginal while it serves"])
    assert (score.valid, score.score, score.reason) == (False, None, "stateful")
    assert "asked again in request" in score.message


@pytest.mark.parametrize("name", HONEST)
def test_honest_twins_pass(judged, name):
    for seed in ("a", "b", "c"):
        verdict = judged(HONEST[name], seed)
        assert verdict.failed is None, verdict.message
        assert verdict.score < 0.9  # it knows two tokens of four


def served(predict, rows=400, seed=0):
    """Serve a plan's batches in order; return the batches, the answers, each row's first answer."""
    batches = audits.plan(rows, 64, np.random.default_rng(seed))
    answers = [predict(batch.rows).astype(np.float32) for batch in batches]
    first = np.zeros((rows, answers[0].shape[1]), np.float32)
    for batch, answer in zip(batches, answers, strict=True):
        if batch.first:
            first[batch.rows] = answer
    return batches, answers, first


def caught(predict, **kwargs):
    """Return the names of the audits that fail."""
    seen = served(predict, **kwargs)
    found = (audits.statelessness(*seen)[0], audits.near_ties(*seen)[0])
    return [audit.name for audit in found if not audit.passed]


ROWS = np.random.default_rng(7)
FIXED = {classes: ROWS.standard_normal((400, classes)) for classes in (2, 3, 10)}
PER_ROW = 10.0 ** ROWS.uniform(-6, 6, (400, 1))
DISGUISES = {
    "as they are": lambda z, rows: z,
    "tiny": lambda z, rows: z * 1e-4,
    "huge": lambda z, rows: z * 1e4,
    "beyond normal numbers": lambda z, rows: z * 1e-37,
    "next to the largest": lambda z, rows: z * 1e37,
    "each row at a scale of its own": lambda z, rows: z * PER_ROW[rows],
    "half of the rows tiny": lambda z, rows: z * np.where(rows % 2, 1.0, 1e-9)[:, None],
    "shifted": lambda z, rows: z + 1e4,
    "shifted far": lambda z, rows: z + 1e6,
    "shifted until nothing is left": lambda z, rows: z + 1e9,
    "each row shifted by its own": lambda z, rows: z + 1e3 * PER_ROW[rows].clip(1e-6, 1),
    "a class out of the question": lambda z, rows: np.pad(
        z, ((0, 0), (0, 1)), constant_values=-1e9
    ),
    "one row of a huge scale": lambda z, rows: z * np.where(rows == 0, 1e9, 1.0)[:, None],
}


@pytest.mark.parametrize("classes", FIXED)
@pytest.mark.parametrize("disguise", DISGUISES)
def test_no_scale_and_no_shift_makes_a_random_model_pass_or_an_honest_one_fail(disguise, classes):
    dress = DISGUISES[disguise]
    dice = np.random.default_rng(1)
    kernel = np.random.default_rng(2)

    def honest(rows):  # rounds differently each time, as kernels for other batch sizes do
        z = FIXED[classes][rows]
        return dress(z * (1 + 1e-6 * kernel.standard_normal(z.shape)), rows)

    def random(rows):
        return dress(dice.standard_normal((len(rows), classes)), rows)

    def learning(rows):
        z = FIXED[classes][rows].copy()
        z[:, 0] += dice.uniform(0, 3)
        return dress(z, rows)

    assert caught(honest) == []
    if disguise != "shifted until nothing is left":
        counted = audits.answers(served(honest)[2]) == FIXED[classes].argmax(axis=1)
        assert counted.mean() > (0.7 if disguise == "shifted far" else 0.99)
    if disguise == "shifted until nothing is left":
        # float32 has no digits left for the gaps: answers are none or class 0; dice gain nothing.
        assert (audits.answers(served(random)[2]) <= 0).all()
        return
    assert "near-ties" in caught(random)
    assert caught(learning)


def test_what_float32_alone_decides_is_no_answer_and_exact_ties_are_the_first_class():
    base, place = np.float32(1e6), np.spacing(np.float32(1e6))
    rows = np.array([
        [base, base, base - 9 * place],
        [base, base + place, base - 9 * place],
        [base, base - 2 * place, base - 9 * place],
        [base, base + 3 * place, base - 9 * place],
        [0, 0, 0],
        [base, base, base - place],
    ])  # fmt: skip
    none = audits.NO_ANSWER
    assert audits.answers(rows.astype(np.float32)).tolist() == [0, none, none, 1, 0, none]


def test_an_answer_that_counts_never_becomes_another_within_rounding():
    """All rows of three classes within five units in the last place: a check of the derivation."""
    place = np.spacing(np.float32(1e6))
    steps = np.array([(a, b, c) for a in range(6) for b in range(6) for c in range(6)])
    rows = (np.float32(1e6) + steps * place).astype(np.float32)
    counted = audits.answers(rows)
    pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows))
             if counted[i] != counted[j] and min(counted[i], counted[j]) >= 0]  # fmt: skip
    assert len(pairs) > 1000
    once, again = (np.array(side) for side in zip(*pairs, strict=True))
    flipped, _ = audits.near_ties(
        [audits.Batch(np.arange(len(once)), first=first) for first in (True, False)],
        [rows[once], rows[again]],
        rows[once],
    )
    assert flipped.value == len(pairs)


def test_a_memory_that_chooses_between_near_ties_is_seen_by_how_many_answers_it_turns_over():
    """Its two best classes are 0.002 apart at a spread of 40, and the memory chooses one."""
    for share, seen in ((0.0, []), (0.3, ["near-ties"])):
        dice = np.random.default_rng(3)

        def choosing(rows, share=share, dice=dice):
            z = FIXED[10][rows] - 20
            z[:, :2] = 20.0 + 1e-3 * np.array([1, -1])
            turned = dice.random(len(rows)) < share / 2
            z[turned, :2] = z[turned, 1::-1]
            return z

        assert caught(choosing) == seen


def test_a_model_that_rounds_to_bfloat16_itself_passes_with_its_near_ties():
    kernel = np.random.default_rng(4)

    def bfloat16(x):
        return (x.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)

    for classes in (2, 10):
        z = 5 * FIXED[classes]
        predict = lambda rows, z=z: bfloat16(z[rows] * (1 + 1e-6 * kernel.standard_normal()))  # noqa: E731
        assert caught(predict) == []
        kept = audits.answers(served(predict)[2])
        assert (kept != audits.NO_ANSWER).all()


def test_rows_without_any_spread_pass_and_count_as_the_first_class():
    def constant(rows):
        return np.full((len(rows), 10), 3.25)

    assert caught(constant) == []
    assert (audits.answers(served(constant)[2]) == 0).all()
    mostly = FIXED[10] * (np.arange(400)[:, None] % 3 == 0)
    assert caught(lambda rows: mostly[rows]) == []
    assert caught(lambda rows: np.full((len(rows), 10), 3.25) + np.eye(10)[len(rows) % 10])


def test_how_many_flips_are_honest_is_a_matter_of_how_many_were_asked():
    assert [audits.most_flips(n) for n in (0, 64, 250, 512)] == [0, 4, 5, 7]
    dice = np.random.default_rng(5)
    assert dice.binomial(512, audits.FLIP_RATE, 100_000).max() <= audits.most_flips(512)


def test_a_shift_of_all_classes_alone_changes_no_answer_and_fails_nothing():
    count = iter(range(1000))
    assert caught(lambda rows: FIXED[10][rows] + 0.01 * next(count)) == []


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
