"""The judge of language models: an honest model's score is right, and looking ahead is detected.

The audits are tested on a toy language whose true probabilities are known (``lm.py``). The corpus
of dishonest training scripts is tested in ``tests/cheats``.
"""

import numpy as np
import pytest
from lm import (
    BOS,
    LENGTH,
    VOCABULARY,
    at,
    examine,
    make_judge,
    read_stream,
    serve,
    write_split,
)

from scorers import language_audits, serving_order, splice
from scorers.language import AuditSizes
from scorers.language_audits import trend
from scorers.output import Output
from scorers.score import Reason
from scorers.wire import ProtocolError

ONE_BY_ONE = AuditSizes(audit_rows=24, gap=8, twins=6, repeats=5)
"""For requests of one row: no item waits for a later batch, and no batch has to be filled up."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, language):
    return write_split(tmp_path_factory.mktemp("lm") / "search", language, 192, 60_000, seed=1)


@pytest.fixture(scope="module")
def few(tmp_path_factory, language):
    """A small split, for tests that need few rows."""
    return write_split(tmp_path_factory.mktemp("lm") / "search", language, 16, 3000, seed=1)


@pytest.fixture(scope="module")
def honest(folder, language):
    """The verdict on a model that answers with the true probabilities."""
    verdict, told = examine(folder, language.logits)
    assert verdict.failed is None, verdict.message
    assert told == [{"score": round(verdict.score, 6)}]
    return verdict


def audit(verdict, name):
    return next(a for a in verdict.audits if a.name == name)


def shown(folder, language):
    """Return the targets of the scored rows, and the true loss of each in bits."""
    rows = np.load(folder / "rows.npy").astype(np.int64)
    return rows[:, 1:], -at(language.logits(rows[:, :-1]), rows[:, 1:]) / np.log(2)


def test_bits_per_byte_is_what_a_direct_computation_gives(folder, language, honest):
    targets, bits = shown(folder, language)
    counted = targets != BOS
    expected = bits[counted].sum() / (4 * counted.sum())
    assert honest.score == pytest.approx(expected, rel=1e-5)
    row_bits = np.where(counted, bits, 0).sum(axis=1)
    row_bytes = 4 * counted.sum(axis=1)
    apart = row_bits - expected * row_bytes  # residuals of a ratio of sums over 192 rows
    error = np.sqrt((apart**2).sum() * 192 / 191) / row_bytes.sum()
    assert honest.standard_error == pytest.approx(error, rel=1e-4)


def test_a_token_of_one_byte_counts_and_one_of_none_does_not(tmp_path, language):
    folder = write_split(tmp_path / "search", language, 16, 3000, seed=1)
    sizes = np.arange(VOCABULARY) % 4  # 16 tokens besides BOS have no bytes
    sizes[BOS] = 0
    np.save(folder / "token_bytes.npy", sizes.astype(np.int32))
    targets, bits = shown(folder, language)
    length = sizes[targets]
    assert {0, 1, 2, 3} == set(length.ravel().tolist())
    expected = bits[length > 0].sum() / length.sum()
    verdict, _ = examine(folder, language.logits, batch=1, sizes=ONE_BY_ONE)
    assert verdict.score == pytest.approx(expected, rel=1e-5)


def test_raising_all_logits_gains_nothing(folder, language, honest):
    raised, _ = examine(folder, lambda t: language.logits(t) + 50)
    assert raised.score == pytest.approx(honest.score, abs=1e-5)


def test_every_answer_counts_the_last_one_too_and_each_pair_is_compared(few, language):
    """One row per request: five rows come again, six have twins, and no batch needs filling up."""
    for seed in "abc":
        shown, seen = [], []

        def predict(tokens, shown=shown):
            shown.append(tokens.tobytes())
            return language.logits(tokens)

        def observe(what, details, seen=seen):
            if what == "served":
                seen.append(details)

        verdict, _ = serve(
            make_judge(few, ONE_BY_ONE, seed), predict, {"batch_size": 1}, observe=observe
        )
        assert verdict.failed is None, verdict.message
        assert len(shown) == len(set(shown)) + 5
        assert audit(verdict, "statelessness").power.startswith("5 pairs")
        assert audit(verdict, "repeats").power.startswith("5 pairs")
        assert audit(verdict, "prefix").power.startswith("6 pairs")
        assert audit(verdict, "prefix lean").power.startswith("6 pairs")
        every = [{"done": done, "batches": len(shown)} for done in range(1, len(shown) + 1)]
        assert seen == every


def test_each_place_is_asked_for_once_where_it_first_stands(few, language):
    """A place whose twin comes first is not in the swap audit: no coin chose the twin's text."""
    judge, shown = make_judge(few, ONE_BY_ONE), []

    def predict(tokens):
        shown.append(tokens.tobytes())
        return language.logits(tokens)

    verdict, _ = serve(judge, predict, {"batch_size": 1})

    def turn(item):
        return shown.index(judge._items[item : item + 1, :-1].astype(np.int32).tobytes())

    first = sum(turn(item) < turn(judge._twins[item]) for item in judge._twin_place)
    assert 0 < first < 6
    asked = len(judge._places.row) - first
    assert audit(verdict, "swap").power.startswith(f"{asked} places")


def turned(logits, tokens, until=LENGTH - 1):
    """Reorder the logits of all tokens but the next one, so that its loss stays the same."""
    rows, ahead = logits.copy(), tokens[:, 1:]
    for row in range(len(tokens)):
        for t in range(until):
            others = np.arange(VOCABULARY) != ahead[row, t]
            rows[row, t, others] = np.roll(logits[row, t, others], 1)
    return rows


def test_an_old_row_answered_otherwise_where_it_costs_nothing_is_seen_and_told_where(few, language):
    known, number, again = set(), 0, []

    def predict(tokens):
        nonlocal number
        logits = language.logits(tokens)
        if tokens.tobytes() in known and not again:
            again.append(number)
            logits = turned(logits, tokens)
        known.add(tokens.tobytes())
        number += 1
        return logits

    verdict, _ = examine(few, predict, batch=1, sizes=ONE_BY_ONE)
    assert verdict.failed is Reason.STATEFUL
    assert f"answered again in request {again[0]}:" in verdict.message
    assert audit(verdict, "repeats").passed


def test_a_look_ahead_that_gains_nothing_is_seen_between_twins(few, language):
    def predict(tokens):
        logits = language.logits(tokens)
        return np.where(tokens[:, -1:, None] % 2, turned(logits, tokens, until=4), logits)

    verdict, _ = examine(few, predict, batch=1, sizes=ONE_BY_ONE)
    assert [a.name for a in verdict.audits if not a.passed] == ["prefix"]
    assert verdict.failed is Reason.LOOKS_AHEAD


def test_a_look_ahead_leans_by_what_it_adds(few, language):
    verdict, _ = examine(few, peek(language, 0.3), batch=1, sizes=ONE_BY_ONE)
    assert audit(verdict, "prefix lean").value == pytest.approx(0.3, abs=1e-3)


def test_the_resolution_is_that_of_the_trend_where_it_is_the_coarser(few, language, monkeypatch):
    real = language_audits.trend
    monkeypatch.setattr(language_audits, "trend", lambda *rows: (real(*rows)[0], 40 * np.log(2)))
    verdict, _ = examine(few, language.logits, batch=1, sizes=ONE_BY_ONE)
    assert verdict.resolution == pytest.approx(10)  # at 4 bytes a token


def test_columns_that_are_compared_are_all_different(few):
    assert len(set(make_judge(few, ONE_BY_ONE)._columns.tolist())) == 32


def test_hidden_rows_that_would_run_code_when_they_are_read_are_refused(tmp_path, language):
    folder = write_split(tmp_path / "search", language, 16, 3000, seed=1)
    np.save(folder / "rows.npy", np.array([print], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        make_judge(folder, ONE_BY_ONE)


def peek(language, weight, where=lambda tokens: np.ones(tokens.shape, bool)):
    def predict(tokens):
        logits = language.logits(tokens)
        ahead = np.concatenate([tokens[:, 1:], tokens[:, -1:]], axis=1)
        boost = weight * where(tokens)
        boost[:, -1] = 0
        np.put_along_axis(logits, ahead[..., None], _pick(logits, ahead) + boost[..., None], axis=2)
        return logits

    return predict


def _pick(logits, tokens):
    return np.take_along_axis(logits, tokens[..., None].astype(np.int64), axis=2)


@pytest.mark.parametrize("weight", [6.0, 0.3, 0.01])
def test_a_memoryless_look_ahead_is_seen_down_to_tiny_weights(folder, language, honest, weight):
    verdict, told = examine(folder, peek(language, weight))
    assert verdict.score < honest.score - weight / 20
    assert verdict.failed is Reason.LOOKS_AHEAD
    assert told == [{"score": None}]


def test_a_look_ahead_only_after_bos_is_seen(folder, language):
    verdict, _ = examine(folder, peek(language, 6.0, where=lambda tokens: tokens == BOS))
    assert verdict.failed is Reason.LOOKS_AHEAD
    assert not audit(verdict, "swap").passed


class Replay:
    """Answers every prefix that it has seen before as it did then, and cheats on new ones."""

    def __init__(self, cheat):
        self.cheat = cheat
        self.known = {}

    def __call__(self, tokens):
        logits = self.cheat(tokens)
        for row in range(len(tokens)):
            for t in range(tokens.shape[1]):
                prefix = tokens[row, : t + 1].tobytes()
                logits[row, t] = self.known.setdefault(prefix, logits[row, t].copy())
        return logits


@pytest.mark.parametrize("weight", [6.0, 0.3])
def test_memory_helps_a_look_ahead_against_twins_but_not_against_the_swap(folder, language, weight):
    verdict, _ = examine(folder, Replay(peek(language, weight)))
    assert audit(verdict, "prefix").passed
    assert audit(verdict, "prefix lean").passed
    assert not audit(verdict, "swap").passed
    assert verdict.failed is Reason.LOOKS_AHEAD


def test_a_look_two_tokens_ahead_is_seen_although_one_ahead_is_not_looked_at(
    folder, language, honest
):
    """It infers the next token from the one after it, by Bayes' rule over the chain."""

    def predict(tokens):
        logits = language.logits(tokens)
        later = np.concatenate([tokens[:, 2:], tokens[:, -1:], tokens[:, -1:]], axis=1)
        # p(next, later | past) = p(next | past) * p(later | this, next)
        forward = language.probabilities[tokens[:, :-2], :, later[:, :-2]]
        logits[:, :-2] += np.log(forward)
        return logits

    verdict, _ = examine(folder, Replay(predict))
    assert verdict.score < honest.score - 0.02
    assert verdict.failed is Reason.LOOKS_AHEAD
    assert not audit(verdict, "swap").passed


class Learner:
    """Learns, while it serves, which word follows which; before that it knows nothing."""

    def __init__(self):
        self.counts = np.full((VOCABULARY, VOCABULARY), 0.05)

    def __call__(self, tokens):
        logits = np.log(self.counts / self.counts.sum(axis=1, keepdims=True))[tokens]
        np.add.at(self.counts, (tokens[:, :-1], tokens[:, 1:]), 1)
        return logits.astype(np.float32)


def test_learning_while_serving_is_seen_when_old_rows_are_answered_anew(folder):
    verdict, _ = examine(folder, Learner())
    assert verdict.failed is Reason.STATEFUL


def test_learning_while_serving_is_seen_when_old_rows_get_old_answers(folder):
    verdict, _ = examine(folder, Replay(Learner()))
    assert not audit(verdict, "trend").passed
    assert verdict.failed is not None


def test_a_look_across_the_batch_is_seen(folder, language):
    def predict(tokens):
        logits = language.logits(tokens)
        return logits + 0.5 * np.roll(logits, 1, axis=0)

    assert examine(folder, predict)[0].failed in (Reason.STATEFUL, Reason.LOOKS_AHEAD)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_what_is_not_finite_or_absurd_is_refused(few, language, value):
    def predict(tokens):
        logits = language.logits(tokens)
        logits[0, 3, 5] = value
        return logits

    assert examine(few, predict)[0].failed is Reason.NOT_FINITE


def some(seeds, often):
    """Return ``seeds`` as parameters; those that are not in ``often`` are marked nightly."""
    return [
        seed if seed in often else pytest.param(seed, marks=pytest.mark.nightly) for seed in seeds
    ]


@pytest.mark.parametrize("seed", some(range(20), often=(0, 2, 7)))
def test_honest_models_never_fail_and_rounding_is_honest(folder, language, seed):
    rng = np.random.default_rng(seed)

    def rounded(tokens):
        logits = language.logits(tokens)
        return logits + rng.normal(0, 0.02, logits.shape).astype(np.float32)

    for predict in (language.logits, rounded):
        verdict, _ = examine(folder, predict, seed=f"seed {seed}", batch=[1, 7, 16, 64][seed % 4])
        assert verdict.failed is None, verdict.message


@pytest.mark.parametrize("seeds", some((4, 40), often=(4,)))
def test_the_swap_statistic_has_the_spread_it_claims_for_a_bad_model_too(folder, language, seeds):
    """A model unlike the reference is honest too: a high loss must not cause false alarms."""
    flat = np.random.default_rng(3).normal(0, 2, (VOCABULARY, VOCABULARY)).astype(np.float32)
    values = [
        audit(examine(folder, lambda t: flat[t], seed=str(seed))[0], "swap").value
        for seed in range(seeds)
    ]
    assert max(values) < 4.5
    assert 0.1 < np.std(values) < 1.5


@pytest.mark.parametrize("size", [0, 65, -1, True, "8", None])
def test_a_batch_size_outside_the_limits_is_refused(few, language, size):
    with pytest.raises(ProtocolError, match="evaluate_bpb takes 1 to 64"):
        examine(few, language.logits, batch=size)


@pytest.mark.parametrize("size", [1, 7, 64, 300])
def test_every_item_is_shown_and_never_beside_its_twin(size):
    rng = np.random.default_rng(size)
    twins = {3: 90, 90: 3, 5: 91, 91: 5}
    repeats = [0, 1, 2]
    order = serving_order.batches(100, twins, repeats, size, rng)
    flat = np.concatenate(order)
    assert set(flat.tolist()) == set(range(100))
    assert all(len(batch) == size for batch in order)
    assert all((flat == item).sum() >= 2 for item in repeats)
    if size < 100:
        for batch in order:
            assert len(set(batch.tolist())) == len(batch)
            assert not any(twins.get(int(i)) in batch for i in batch)


def test_places_stand_where_both_continuations_follow_the_same_tokens(folder):
    stream = read_stream(folder)
    found = splice.splice(stream, 128, LENGTH, 8, np.random.default_rng(0))
    places = found.places
    assert len(places.row) > 800
    assert np.all(places.own != places.other)
    shown = found.rows[places.row, places.position + 1]
    assert np.array_equal(shown, np.where(places.sign > 0, places.own, places.other))
    assert abs(places.sign.mean()) < 0.15  # the coin is fair
    # All offsets at which a model can look ahead to the next token.
    assert set(places.position.tolist()) == set(range(LENGTH - 1))
    assert places.after_bos.sum() > 50
    assert np.all(found.rows[:, 0] == BOS)
    twin = splice.twin(stream, found, 10)
    at = int(places.position[10])
    row = found.rows[places.row[10]]
    assert np.array_equal(twin[: at + 1], row[: at + 1])
    assert {int(twin[at + 1]), int(row[at + 1])} == {int(places.own[10]), int(places.other[10])}


def test_the_trend_audit_keeps_its_false_alarm_rate_and_sees_a_fall():
    rng = np.random.default_rng(0)
    reference = rng.normal(3, 0.5, 192)
    values = [
        trend(reference * 0.9 + rng.normal(0, 0.1, 192), reference)[0].value for _ in range(300)
    ]
    assert max(values) < 4.5
    falling = reference * 0.9 + rng.normal(0, 0.1, 192) - np.linspace(0, 0.3, 192)
    assert not trend(falling, reference)[0].passed


def test_the_printed_resolution_is_what_passes_and_no_more(folder, language, honest):
    """Gains above the printed resolution are detected, even for a cheat that no twin reveals."""
    seen = 0
    for weight in (0.05, 0.1, 0.2):
        verdict, _ = examine(folder, Replay(peek(language, weight)))
        gain = honest.score - verdict.score
        if gain > verdict.resolution:
            seen += 1
            assert verdict.failed is Reason.LOOKS_AHEAD, (weight, gain, verdict.resolution)
    assert seen


@pytest.mark.parametrize("before", [b"", b"step 1: loss 2\n---\nval_bpb: 9\n"])
def test_the_last_summary_is_the_claim_even_where_nothing_stands_before_it(before):
    output = Output()
    output.feed("stdout", before + b"---\nval_bpb:   1.25\nnum_steps: 3\nno pair\n")
    assert output.summary() == {"val_bpb": "1.25", "num_steps": "3"}
