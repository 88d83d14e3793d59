"""The numbers of the audits, against what their texts promise: a wrong number lets a cheat pass."""

import re
from itertools import permutations
from math import comb

import numpy as np
import pytest
from lm import BOS, LENGTH, Language2, read_stream, write_split

from scorers import audits, language_audits, serving_order, splice
from scorers.audits import Batch
from scorers.language import _pair
from scorers.language_audits import TwinAnswers


def asked_again(first, again):
    """Return what audits take, for rows asked twice: batches, both answers, the first answer."""
    every = np.arange(len(first))
    batches = [Batch(every, first=True), Batch(every, first=False)]
    return batches, [first, again], first


def logits(*rows):
    return np.array(rows, np.float32)


def test_a_class_may_move_by_a_share_of_what_keeps_it_from_the_best_or_of_the_rows_spread():
    """The spread is 3.5 (4 less the median 0.5): more than the gap of class 1, less than of 0."""
    first = logits([0, 1, 4], [0, 1, 4])
    moved = logits([0, 1, 4], [0, 1.3, 4])
    audit, where = audits.statelessness(*asked_again(first, moved))
    assert audit.value == pytest.approx(0.3 / 3.5)
    assert "row 1 asked again in request 1 (a batch of 2)" in where
    moved = logits([0.3, 1, 4], [0, 1, 4])
    assert audits.statelessness(*asked_again(first, moved))[0].value == pytest.approx(0.3 / 4)


def test_what_rounding_to_either_neighbour_moves_is_honest_where_a_row_has_no_spread():
    base = np.float32(1e6)
    place = np.spacing(base)
    first = logits(*[[base, base, base]] * 8)
    seen = asked_again(first, first + place * logits([1, 0, 0]))
    assert audits.statelessness(*seen)[0].passed
    seen = asked_again(first, first + place * logits([3, 0, 0]))
    assert not audits.statelessness(*seen)[0].passed


def test_a_turn_within_rounding_is_no_flip_and_one_beyond_it_is():
    base = np.float32(1e6)
    place = np.spacing(base)
    for by, flips in ((1, 0), (2, 1)):  # units in the last place, in each of the two answers
        seen = asked_again(logits([base + by * place, base]), logits([base, base + by * place]))
        assert audits.near_ties(*seen)[0].value == flips


def test_as_many_flips_as_are_honest_pass_and_one_more_is_told():
    first = np.tile(logits([1, 0]), (64, 1))
    for flips, passed in ((4, True), (5, False)):
        again = first.copy()
        again[:flips] = [0, 1]
        audit, where = audits.near_ties(*asked_again(first, again))
        assert (audit.passed, audit.value, audit.threshold) == (passed, flips, 4)
        assert where == (
            f"{flips} of 64 repeats got another answer, the last of them row 0 in request 1 "
            "(a batch of 64)"
        )


def test_what_an_audit_says_that_it_sees_is_what_it_sees():
    """The text in the report is an approximation; it is compared with the exact probabilities."""
    same = np.tile(logits([1, 0]), (64, 1))
    power = audits.statelessness(*asked_again(same, same))[0].power
    assert power.startswith("64 repeats: a memory or a look at the batch that moves 6.9% ")
    assert pytest.approx(0.99, abs=0.001) == 1 - (1 - 0.069) ** 64
    for repeats in (64, 250, 512):
        limit = audits.most_flips(repeats)
        same = np.tile(logits([1, 0]), (repeats, 1))
        power = audits.near_ties(*asked_again(same, same))[0].power
        share = float(re.search(r"turns over ([\d.]+)%", power)[1]) / 100
        unseen = sum(
            comb(repeats, k) * share**k * (1 - share) ** (repeats - k) for k in range(limit + 1)
        )
        assert 0.025 < unseen < 0.05
        assert power.startswith(f"{repeats} repeats: ")
    one = asked_again(logits([1, 0]), logits([1, 0]))
    assert "turns over 100.0% of" in audits.near_ties(*one)[0].power
    assert "a steady rise of about 50% from" in audits.trend(np.ones(300, bool)).power


@pytest.mark.parametrize("values", [(1.0, 3.0), (0.0, 0.0, 1.0), (0.3, 1.0, 4.0, -2.0, 0.0)])
def test_a_rise_is_in_standard_deviations_of_a_permutation_exactly(values):
    order = np.arange(len(values))
    rises = [audits.rise(np.array(p), order) for p in permutations(values)]
    assert np.mean(rises) == pytest.approx(0)
    assert np.std(rises) == pytest.approx(1)


def test_a_rise_has_no_unit_and_is_none_where_nothing_changes():
    values, order = np.random.default_rng(0).random(50), np.arange(50)
    assert audits.rise(values * 1e-6, order) == pytest.approx(audits.rise(values, order))
    assert audits.rise(np.full(50, 0.25), order) == 0.0


def test_an_eighth_is_asked_again_distinct_rows_old_and_young_half_of_them_at_the_end():
    for rows, again in ((400, 64), (2000, 250), (8000, 512)):
        plan = audits.plan(rows, 64, np.random.default_rng(rows))
        assert sum(len(batch.rows) for batch in plan if not batch.first) == again
    sizes, late, early, young, batches = set(), 0, 0, 0, 0
    for seed in range(100):
        plan = audits.plan(2048, 64, np.random.default_rng(seed))
        turn = [row for batch in plan if batch.first for row in batch.rows.tolist()]
        new = [number for number, batch in enumerate(plan) if batch.first]
        for number, batch in enumerate(plan):
            if batch.first:
                continue
            assert len(set(batch.rows.tolist())) == len(batch.rows)
            batches += 1
            sizes.add(len(batch.rows))
            late += number > new[-1]
            early += number < new[len(new) // 2 - 1]
            done = sum(len(b.rows) for b in plan[:number] if b.first)
            young += any(turn.index(row) >= done / 2 for row in batch.rows.tolist())
    assert {1, 2, 3, 7, 32, 64} <= sizes
    assert 0.4 < late / batches < 0.6
    assert early == 0
    assert 0.2 < young / batches < 0.5


def pair(gain=0.0, spread=0.0):
    return TwinAnswers(item=3, again_in=5, spread=spread, at=7, gain=gain)


def test_a_small_lean_of_all_pairs_is_seen_and_rounding_that_leans_less_is_not():
    assert language_audits.drift("repeats", [pair(0.0009)] * 48)[0].passed
    assert not language_audits.drift("repeats", [pair(0.0011)] * 48)[0].passed
    empty, _ = language_audits.drift("repeats", [])
    assert (empty.passed, empty.value) == (True, 0.0)


def test_a_lean_is_seen_from_five_standard_errors_and_what_is_printed_is_seen_in_95_of_100():
    gains = np.random.default_rng(1).normal(0, 0.1, 48)
    error = np.sqrt(((gains - gains.mean()) ** 2).sum() / 47 / 48)
    pairs = [pair(gain) for gain in gains]
    audit, _ = language_audits.drift("repeats", pairs)
    assert audit.threshold == pytest.approx(5 * error)
    sees = language_audits.seen_drift(pairs)
    assert sees == pytest.approx(6.645 * error)
    assert audit.power == f"48 pairs: a lean of {sees:.2g} nats a token is seen"


def test_the_worst_pair_is_told():
    pairs = [pair(spread=0.1), TwinAnswers(9, 11, 0.3, 13, 0.0), pair(spread=0.2)]
    audit, where = language_audits.agreement("prefix", pairs)
    assert (audit.passed, audit.value) == (False, 0.3)
    assert where.startswith("row 9, position 13, answered again in request 11: ")


def test_without_a_pair_there_is_no_difference():
    audit, where = language_audits.agreement("prefix", [])
    assert (audit.passed, audit.value, where) == (True, 0.0, "")


def test_two_answers_differ_by_the_root_mean_square_over_target_and_columns():
    nats, columns = np.ones(4, np.float32), np.ones((4, 3), np.float32)
    changed, moved = nats.copy(), columns.copy()
    changed[1] -= 0.5
    moved[1] += 0.5
    found = _pair(3, 5, (nats, columns), (changed, moved), 4)
    assert (found.item, found.again_in, found.at) == (3, 5, 1)
    assert found.spread == pytest.approx(0.5)
    assert found.gain == pytest.approx(0.5 / 4)
    moved[3] += 9  # after the last shared target: only the columns are compared there
    assert _pair(3, 5, (nats, columns), (changed, moved), 2).at == 1
    assert _pair(3, 5, (nats, columns), (changed, moved), 3).at == 3


def test_what_is_expected_of_a_place_is_learned_from_the_places_before_it():
    rng = np.random.default_rng(2)
    preference, reference = rng.normal(size=20), rng.normal(size=20)
    expected = language_audits._expected(preference, reference)
    for i in range(20):
        slope = (50 + preference[:i] @ reference[:i]) / (50 + reference[:i] @ reference[:i])
        assert expected[i] == pytest.approx(slope * reference[i])


@pytest.mark.parametrize(("agreeing", "passed"), [(188, True), (189, False)])
def test_the_swap_fails_from_four_and_a_half_deviations_and_prints_what_it_would_see(
    agreeing, passed
):
    """Of 300 equally strong preferences, ``agreeing`` favour the continuation that is shown."""
    none, sign = np.zeros(300), np.ones(300, np.int64)
    number = np.arange(300)
    places = splice.Places(
        row=number, position=number, own=number, other=number, sign=sign,
        reference=none, after_bos=none.astype(bool), absent=number,
    )  # fmt: skip
    preference = np.where(number < agreeing, 0.5, -0.5)
    audit, where, resolution = language_audits.swap(
        places, language_audits.Swapped(number, preference), bytes_per_token=4
    )
    assert audit.value == pytest.approx((2 * agreeing - 300) / np.sqrt(300))
    assert audit.passed is passed
    assert "most at audited row 0, position 0" in where
    # Preferences scatter by 0.5. The 2: a cheat may stay honest where ``other`` is shown.
    assert resolution == pytest.approx(2 * (4.5 + 1.645) * 0.5 / np.sqrt(300) / np.log(2) / 4)


def test_a_lean_over_places_has_no_unit():
    sign = np.array([1.0, -1.0, 1.0, 1.0])
    rest = np.array([0.5, -0.25, 1.0, -1.0])
    expected = (0.5 + 0.25 + 1 - 1) / np.sqrt(0.25 + 0.0625 + 1 + 1)
    for unit in (1, 1e-6, 1e6):
        assert language_audits._lean(sign, rest * unit) == pytest.approx(expected)
    assert language_audits._lean(sign, np.zeros(4)) == 0.0


def test_what_the_reference_explains_is_no_trend():
    rng = np.random.default_rng(3)
    falling = 6 - np.linspace(0, 3, 192) + rng.normal(0, 0.5, 192)
    audit, _ = language_audits.trend(0.9 * falling + rng.normal(0, 0.1, 192), falling)
    assert audit.value < 3
    alike, _ = language_audits.trend(0.9 * falling, 1e-6 * falling)
    assert alike.value < 3  # whatever the reference's unit
    assert not language_audits.trend(0.9 * falling, rng.normal(0, 1, 192))[0].passed


def test_the_fall_that_a_trend_is_said_to_show_is_seen_in_95_of_100():
    """The audit computes that fall from the served rows; a learner's fall adds to their scatter."""
    rng = np.random.default_rng(4)
    reference = rng.normal(3, 0.5, 192)

    def learner(fall):
        rows = reference + rng.normal(0, 0.1, 192) - np.linspace(0, fall, 192)
        return language_audits.trend(rows, reference)

    fall = 0.0
    for _ in range(20):  # ``trend`` returns the average gain: half of the fall
        fall = 2 * np.mean([learner(fall)[1] for _ in range(20)])
    assert np.mean([not learner(fall)[0].passed for _ in range(400)]) > 0.9
    assert np.mean([not learner(0.7 * fall)[0].passed for _ in range(400)]) < 0.5


def test_a_thief_who_takes_rarely_takes_the_dearest():
    nats = np.arange(100, dtype=np.float32).reshape(4, 25)
    assert language_audits.rare_gain(nats, 30) == pytest.approx(sum(range(90, 100)) / 100)
    assert language_audits.rare_gain(nats, 1) == pytest.approx(nats.sum() / 100)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    folder = write_split(tmp_path_factory.mktemp("lm") / "search", Language2(), 16, 30_000, seed=2)
    return read_stream(folder)


def test_places_are_as_rare_as_was_asked_and_half_of_the_documents_ask_for_their_first_word(stream):
    found = splice.splice(stream, 192, LENGTH, 8, np.random.default_rng(0))
    often = len(found.places.row) / (found.rows[:, :-2].size / 8)
    assert 0.7 < often < 1.2
    ends = found.rows[found.places.row, found.places.position + 1] == BOS
    assert 0 < ends.mean() < 0.1  # a document's end is asked for too
    begins = (found.rows[:, : LENGTH - 1] == BOS).sum()
    assert 0.4 < found.places.after_bos.sum() / begins < 0.6


def test_the_other_continuation_is_about_as_likely_as_the_own(stream, monkeypatch):
    def apart():
        places = splice.splice(stream, 192, LENGTH, 8, np.random.default_rng(0)).places
        return np.abs(places.reference).mean()

    chosen = apart()
    monkeypatch.setattr(splice, "TRIES", 1)
    assert chosen < 0.8 * apart()


def test_one_place_of_each_row_is_picked_any_of_them_evenly(stream):
    places = splice.splice(stream, 32, LENGTH, 8, np.random.default_rng(0)).places
    picked = [splice.one_a_row(places, np.random.default_rng(seed)) for seed in range(200)]
    for numbers in picked:
        assert places.row[numbers].tolist() == sorted(set(places.row.tolist()))
    assert set(np.concatenate(picked).tolist()) == set(range(len(places.row)))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_batches_are_full_and_keep_twins_apart_where_twins_and_repeats_crowd(size):
    twins = {i: i ^ 1 for i in range(60)}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        order = serving_order.batches(60, twins, range(0, 60, 2), size, rng)
        assert {len(batch) for batch in order} == {size}
        for batch in order:
            assert len({i // 2 for i in batch.tolist()}) == size
        counts = np.bincount(np.concatenate(order), minlength=60)
        assert (counts >= np.array([2, 1] * 30)).all()
        if size == 1:  # no item waits for a later batch, so repeats come late
            turns = np.concatenate(order).tolist()
            assert all(turns[30:].count(item) >= 1 for item in range(0, 60, 2))
