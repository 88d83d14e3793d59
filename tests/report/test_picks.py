"""The winner's curse in the report: search score of the pick against its test score."""

import re
from math import sqrt
from statistics import fmean, stdev

import pytest

from harness.report.html import page as pages
from harness.report.html import picks
from harness.report.html.traces import trace
from harness.report.stats import student
from harness.store.index import entries, read
from report.made import HOSTILE
from report.made_runs import BITS, make_run

pytestmark = pytest.mark.usefixtures("quick")


def built(folder):
    return picks.tables([trace(entry) for entry in entries([folder])])


def test_a_shortfall_is_search_less_test_and_its_mean_has_students_interval(tmp_path):
    scores = {0: (0.5, 0.4), 1: (0.6, 0.58), 2: (0.7, 0.61)}
    for seed, (search, test) in scores.items():
        make_run(tmp_path, seed, test, nodes=[0.1, search])
    make_run(tmp_path, 3, None, nodes=[0.9])
    (table,) = built(tmp_path)
    (row,) = table.rows
    shortfalls = [search - test for search, test in scores.values()]
    half = student.quantile(0.975, 2) * stdev(shortfalls) / sqrt(3)
    assert (row.who, row.seeds) == ("one x greedy", 3)
    assert (row.search, row.test) == pytest.approx((0.6, 0.53))
    assert row.shortfall == pytest.approx(fmean(shortfalls))
    assert row.interval == pytest.approx((fmean(shortfalls) - half, fmean(shortfalls) + half))
    assert [(p.seed, p.search, p.test) for p in table.picks] == [
        (seed, *both) for seed, both in scores.items()
    ]
    assert table.note.startswith("1 run without both scores")
    assert "higher is better" in table.better


def test_where_less_is_better_a_larger_test_score_is_a_shortfall(tmp_path):
    for seed, test in enumerate((1.02, 0.97, 1.0)):
        make_run(tmp_path, seed, test, nodes=[1.5, 0.99], **BITS)
    (table,) = built(tmp_path)
    assert [round(p.shortfall, 9) for p in table.picks] == [0.03, -0.02, 0.01]
    assert "lower is better" in table.better


def test_agents_are_in_the_order_of_their_test_scores_and_few_seeds_have_no_interval(tmp_path):
    for agent, test in (("bad", 0.2), ("good", 0.6)):
        for seed in range(2):
            make_run(tmp_path, seed, test, nodes=[0.7], agent=agent)
    (table,) = built(tmp_path)
    assert [(row.who, row.seeds, row.interval) for row in table.rows] == [
        ("good x greedy", 2, None), ("bad x greedy", 2, None),
    ]  # fmt: skip


def test_a_seed_that_was_run_twice_is_one_draw(tmp_path):
    for seed, name, test in ((0, "a", 0.4), (0, "b", 0.6), (1, "c", 0.6)):
        make_run(tmp_path, seed, test, nodes=[0.7], name=name)
    ((row,),) = (table.rows for table in built(tmp_path))
    assert row.seeds == 2
    assert row.shortfall == pytest.approx((0.2 + 0.1) / 2)


def test_an_interval_ends_where_no_larger_shortfall_can_be(tmp_path):
    for seed, test in enumerate((0.99, 0.01, 0.01)):
        make_run(tmp_path, seed, test, nodes=[0.99])
    ((row,),) = (table.rows for table in built(tmp_path))
    assert row.interval == (pytest.approx(-0.7522, abs=1e-4), 1.0)


def test_other_conditions_have_tables_of_their_own(tmp_path):
    make_run(tmp_path, 0, 0.4, nodes=[0.5])
    make_run(tmp_path, 1, 0.4, nodes=[0.5], data_hash="e" * 16)
    make_run(tmp_path, 2, 0.4, nodes=[0.5], agent="replay:/nowhere", name="replay")
    assert [len(table.picks) for table in built(tmp_path)] == [1, 1]


def test_the_page_shows_each_run_and_says_what_it_means(tmp_path):
    for seed in range(3):
        make_run(tmp_path, seed, 0.4 + seed / 10, nodes=[0.7], agent=HOSTILE, name=f"run-{seed}")
    pages.write(entries([tmp_path]), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    section = text.partition('<section id="picks">')[2].partition("</section>")[0]
    assert section.count("the winner’s curse") == 1
    assert re.findall(r">([+-]0\.\d{4})</td></tr>", section) == ["+0.3000", "+0.2000", "+0.1000"]
    assert "+0.2000, 95 % -0.0484 to +0.4484; 3 seeds" in section
    assert "<script>window.hit" not in text
    assert 'href="#picks"' in text


@pytest.mark.parametrize(
    ("test", "words"),
    [(0.6, "it is 0.1000 worse:"), (0.75, "it is 0.0500 better:"), (0.7, "it is the same:")],
)
def test_one_run_says_it_in_a_sentence(tmp_path, test, words):
    run = make_run(tmp_path, 0, test, nodes=[0.7])
    pages.write(entries([run]), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert f"On the test split {words}" in text
    assert 'id="picks"' not in text


def test_a_run_without_a_test_score_or_an_old_result_without_a_search_score_has_no_shortfall(
    tmp_path,
):
    assert picks.pick_of(read(make_run(tmp_path, 0, None))) is None
    old = make_run(tmp_path, 1, 0.5, name="old")
    file = old / "result.json"
    file.write_text(file.read_text().replace('"search_score"', '"other"'))
    assert picks.pick_of(read(old)) is None
    assert built(tmp_path) == []
    pages.write(entries([old]), tmp_path / "r.html")
