"""The index of run directories: it limits what it reads, and writes nothing into a run.

A damaged or outdated cache never changes what it returns.
"""

import os
import sqlite3
import time
from contextlib import closing

import pytest

from harness.base.errors import ConfigError
from harness.base.files import MOST_BYTES
from harness.store.index import entries
from harness.store.outcome import Outcome
from scorers import conditions
from scorers.score import CONDITIONS

from .made_runs import make_run


def state(path):
    (entry,) = entries([path])
    return entry.state, entry.problem


def old(path):
    """Set the times of a run's files back by 100 s: runs that just changed are not cached."""
    for file in path.rglob("*"):
        os.utime(file, ns=(time.time_ns() - 10**11,) * 2)


def cached(cache):
    """Return how many runs a cache holds."""
    with closing(sqlite3.connect(cache)) as base:
        return base.execute("SELECT count(*) FROM runs").fetchone()[0]


def test_how_a_run_stands_is_read_off_its_files(tmp_path):
    assert state(make_run(tmp_path, 0))[0] == "finished"
    assert state(make_run(tmp_path, 1, closed="failed", message="why")) == ("failed", "why")
    assert state(make_run(tmp_path, 2, closed="interrupted"))[0] == "interrupted"
    assert state(make_run(tmp_path, 3, closed=""))[0] == "unfinished"
    torn = make_run(tmp_path, 4, closed="failed", message="x")
    with (torn / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "clo')
    assert state(torn)[0] == "failed"  # a torn last line is ignored


def test_a_pipe_a_loop_or_a_giant_in_place_of_a_file_is_named_not_read(tmp_path):
    pipe, loop, giant = (make_run(tmp_path, s) for s in range(3))
    for path in (pipe, loop, giant):
        (path / "lock.json").unlink()
    os.mkfifo(pipe / "lock.json")
    (loop / "lock.json").symlink_to("lock.json")
    with (giant / "lock.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    for path, word in ((pipe, "regular"), (loop, "lock.json"), (giant, "larger")):
        found, problem = state(path)
        assert found == "skipped"
        assert word in problem


def test_nothing_is_written_into_a_run(tmp_path):
    path = make_run(tmp_path / "runs")
    before = {p: p.stat().st_mtime_ns for p in sorted(path.rglob("*"))}
    entries([tmp_path / "runs"], cache=tmp_path / "cache.sqlite")
    assert {p: p.stat().st_mtime_ns for p in sorted(path.rglob("*"))} == before


def test_cache_answers_as_the_files_do_and_notices_each_change(tmp_path):
    cache = tmp_path / "cache.sqlite"
    path = make_run(tmp_path / "runs", 0, 0.5)
    old(path)
    first = entries([tmp_path / "runs"], cache=cache)
    assert cached(cache) == 1
    assert entries([tmp_path / "runs"], cache=cache) == first
    text = (path / "result.json").read_text().replace('"score": 0.5', '"score": 0.7')
    (path / "result.json").write_text(text)
    (second,) = entries([tmp_path / "runs"], cache=cache)
    assert second.outcome.score == 0.7
    (path / "result.json").unlink()
    assert entries([tmp_path / "runs"], cache=cache)[0].outcome is None


@pytest.mark.parametrize("damage", ["no database", "", "other"])
def test_a_cache_that_is_damaged_is_made_anew(tmp_path, damage):
    cache = tmp_path / "cache.sqlite"
    old(make_run(tmp_path / "runs"))
    if damage == "other":
        with closing(sqlite3.connect(cache)) as base, base:
            base.execute("CREATE TABLE runs (something TEXT)")
    else:
        cache.write_text(damage * 1000)
    for _ in range(2):
        assert len(entries([tmp_path / "runs"], cache=cache)) == 1
    assert cached(cache) == 1


def test_a_cached_entry_that_was_tampered_with_into_nonsense_is_read_again(tmp_path):
    cache = tmp_path / "cache.sqlite"
    old(make_run(tmp_path / "runs"))
    first = entries([tmp_path / "runs"], cache=cache)
    with closing(sqlite3.connect(cache)) as base, base:
        assert base.execute("UPDATE runs SET entry = '{}'").rowcount == 1
    assert entries([tmp_path / "runs"], cache=cache) == first


def test_sweeps_within_a_folder_are_looked_into(tmp_path):
    make_run(tmp_path / "sweep", 1)
    (tmp_path / "sweep" / "sweep.toml").write_text("")
    (tmp_path / "sweep" / "logs").mkdir()
    make_run(tmp_path, 0)
    assert len(entries([tmp_path])) == 2


def test_a_place_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(ConfigError) as error:
        entries([tmp_path / "nowhere"])
    assert "nowhere" in str(error.value)


def test_scores_of_a_scorer_that_judged_as_todays_compare_with_todays(tmp_path, monkeypatch):
    monkeypatch.setattr(conditions, "AS_BEFORE", {"2+then"})
    runs = [
        make_run(tmp_path, seed, scorer=judge, agent=agent, closed=closed)
        for agent, judge in (("one", "2+then"), ("two", conditions.scorer()), ("three", "2+else"))
        for seed, closed in ((0, "finished"), (1, "failed"))
    ]
    one, _, two, unscored, three, _ = (entries([run])[0].key for run in runs)
    assert one == two == unscored
    assert conditions.differing(one, three) == ("scorer",)
    # Files still name the old scorer; today's readers treat the two scorers as the same.
    assert conditions.differing({**one, "scorer": "2+then"}, two) == ()
    assert tuple(one) == CONDITIONS


@pytest.mark.parametrize(
    ("sandbox", "isolation"),
    [("bubblewrap", "isolated"), ("process", "NOT ISOLATED"), ("of-a-package", "NOT ISOLATED")],
)
def test_an_unscored_run_stands_where_its_sandbox_puts_it(tmp_path, sandbox, isolation):
    run = make_run(tmp_path, 0, closed="failed", sandbox=sandbox)
    assert entries([run])[0].key["isolation"] == isolation


@pytest.mark.parametrize(("metric", "rows"), [("accuracy", 100), ("bits_per_byte", None)])
def test_only_of_a_share_of_rows_the_error_tells_how_many_there_were(metric, rows):
    judged = {"valid": True, "metric": metric, "score": 0.5, "standard_error": 0.05}
    assert Outcome.model_validate(judged).rows == rows
