"""Tests of ``harness watch``: states, damaged runs, hostile text, and how little it reads."""

import fcntl
import io
import json
import os
import pty
import select
import shutil
import subprocess
import termios
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from calling import HARNESS, call
from filelock import FileLock
from toy_task import TOY

from harness.base.errors import ConfigError
from harness.core.model import Prompt, Reply, Usage
from harness.report.watching import Watch, lines
from harness.store import journal as journals
from harness.store import rundir
from harness.store.follower import Follower
from harness.store.journal import Journal
from harness.store.rundir import Run
from harness.store.tape import CallRecord, LostCall, Tape, system_hash


@pytest.fixture
def runs(finished, tmp_path):
    """A folder with runs in several states; this process holds the lock of the live one."""
    here, result = finished
    finished, place = here / result["run"], tmp_path / "runs"
    for name in ("finished", "killed", "interrupted", "live", "torn", "toml", "bare", "deep"):
        shutil.copytree(finished, place / name)
    for name in ("killed", "interrupted", "live", "torn", "toml", "bare", "deep"):
        (place / name / "result.json").unlink()
    whole = (finished / "events.jsonl").read_text().splitlines(keepends=True)
    upto = next(n for n, line in enumerate(whole) if '"evaluating", "node": 2' in line) + 1
    for name in ("killed", "interrupted", "live"):
        (place / name / "events.jsonl").write_text("".join(whole[:upto]))
    journal = place / "interrupted" / "events.jsonl"
    journal.write_text(journal.read_text() + next_line(journal, "closed", status="interrupted"))
    (place / "torn" / "events.jsonl").write_text("".join(whole[:3]) + "no json\n" + whole[3])
    (place / "toml" / "run.toml").write_text("format = 1\ntask = ")
    (place / "bare" / "run.toml").unlink()
    (place / "deep" / "events.jsonl").write_text("[" * 100_000 + "\n")
    (place / "notes").mkdir()
    (place / "notes" / "todo.txt").write_text("mine")
    with FileLock(place / "live" / ".lock"):
        yield place


def next_line(journal: Path, event: str, **data: object) -> str:
    """Return the line that a journal would get for an event; the journal stays as it is."""
    copy = journal.with_name("copy.jsonl")
    shutil.copy(journal, copy)
    with closing(Journal(copy)) as written:
        written.append(event, **data)
    line = copy.read_text().splitlines(keepends=True)[-1]
    copy.unlink()
    return line


def made_by(run: Path, agent: str) -> None:
    """Change a run's files as if it had been started with the agent of that name."""
    for file, old, new in (
        (run / "run.toml", 'agent = "reference"', f'agent = "{agent}"'),
        (run / "lock.json", '"agent": "reference"', f'"agent": "{agent}"'),
    ):
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))


def test_every_state_is_named_and_damage_is_a_row_not_a_traceback(runs):
    done = call("watch", runs, "--once", "--json", cwd=runs)
    rows = {Path(row["run"]).name: row for row in done.json["runs"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        "live": "running",
        "torn": "damaged",
        "toml": "damaged",
        "bare": "damaged",
        "deep": "damaged",
        "killed": "killed",
        "interrupted": "interrupted",
        "finished": "finished",
    }
    assert all(rows[name]["problem"] for name in ("torn", "toml", "bare", "deep"))
    live, ended = rows["live"], rows["finished"]
    assert (live["step"], live["steps"], live["doing"]) == (2, 4, "evaluating")
    assert (live["best"], live["best_node"], live["score"]) == (0.5375, 0, None)
    assert live["seconds"] > rows["killed"]["seconds"] > 0
    assert (ended["best"], ended["score"], ended["valid"], ended["step"]) == (1.0, 1.0, True, 4)
    assert (live["calls"], live["dollars"]) == (0, 0.0)


def test_the_living_come_first_and_every_line_fits_eighty_columns(runs, monkeypatch):
    made_by(runs / "killed", "an-agent-of-long-name-" * 3)
    monkeypatch.setenv("COLUMNS", "80")
    done = call("watch", runs, cwd=runs)
    shown = done.stdout.splitlines()
    reasons = [line for line in shown if line.startswith("damaged: ")]
    shown = [line for line in shown if line not in reasons]
    assert [Path(line.split(": ")[1]).name for line in reasons] == ["bare", "deep", "toml", "torn"]
    assert max(map(len, shown)) <= 80
    assert any("an-agent-of-long-name-" * 3 in line for line in shown)  # whole, to be copied
    assert shown[0].split() == ["agent", "task", "policy", "seed", "best", "test", "step",
                                "time", "state"]  # fmt: skip
    assert "evaluating" in shown[1]
    assert sum("damaged" in line for line in shown) == 4
    assert "finished" in shown[-1]


def test_more_runs_than_lines_are_counted_not_drawn(runs):
    shown = lines(Watch([runs]).look(), width=80, height=6)
    assert len(shown) == 5
    assert shown[-1] == "… and 5 more"


def test_what_runs_hold_is_shown_and_never_obeyed(runs):
    made_by(runs / "killed", r"\u001b]0;pwned\u0007\u001b[2J\u4e2d\u6587\nsecond line")
    (runs / "toml" / "run.toml").write_text('format = 1\n"\u001b[31mred" = 3\n')
    done = call("watch", runs, cwd=runs)
    assert "pwned" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    assert len(done.stdout.splitlines()) == 9 + 4  # heading, 8 runs; and why four are damaged


def test_what_an_ended_run_says_of_itself_stands_however_often_it_is_looked_at(runs):
    file = runs / "finished" / "result.json"
    result = json.loads(file.read_text())
    result["spent"]["model"] |= {"calls": 3, "output_tokens": 40, "dollars_known": 1.5}
    file.write_text(json.dumps(result))
    follower = Follower(runs / "finished")
    for _ in range(3):
        now = follower.look()
        assert (now.state, now.calls, now.tokens_out, now.dollars) == ("finished", 3, 40, 1.5)


def test_only_new_bytes_of_a_journal_are_read(runs, monkeypatch):
    follower, read = Follower(runs / "live"), []
    file = runs / "live" / "events.jsonl"
    line = next_line(file, "scored", node=2, score=0.75)

    class Counted(io.FileIO):
        def read(self, size=-1):
            text = super().read(size)
            read.append(len(text))
            return text

    monkeypatch.setattr(journals, "open_plain", Counted)
    assert follower.look().step == 2
    assert sum(read) == file.stat().st_size
    read.clear()
    for _ in range(5):
        assert follower.look().step == 2
    assert sum(read) == 0
    with file.open("a") as journal:
        journal.write(line[:30])  # half a line does not count yet
    assert follower.look().step == 2
    with file.open("a") as journal:
        journal.write(line[30:])
    now = follower.look()
    assert (now.step, now.best, now.best_node) == (3, 0.75, 2)
    assert sum(read) <= len(line) + 30


def test_a_damaged_run_that_is_mended_is_shown_again(runs):
    follower = Follower(runs / "torn")
    assert follower.look().state == "damaged"
    shutil.copy(runs / "killed" / "events.jsonl", runs / "torn" / "events.jsonl")
    assert follower.look().state == "killed"


def test_a_dead_run_that_is_resumed_is_seen_to_live_again(runs):
    follower, file = Follower(runs / "killed"), runs / "killed" / "events.jsonl"
    assert follower.look().state == "killed"
    line = next_line(file, "opened", pid=7)
    with FileLock(runs / "killed" / ".lock"):
        with file.open("a") as journal:
            journal.write(line)
        now = follower.look()
        assert (now.state, now.pid) == ("running", 7)
    assert follower.look().state == "killed"


def test_watching_writes_nothing_and_takes_no_lock_that_a_run_wants(runs, monkeypatch):
    (runs / "killed" / ".lock").unlink(missing_ok=True)
    before = {p: p.stat().st_mtime_ns for p in runs.rglob("*")}
    Watch([runs]).look()
    assert {p: p.stat().st_mtime_ns for p in runs.rglob("*")} == before

    # A look that has its lock goes on only when the run has tried once in vain: it tries again.
    looking, refused, flock = threading.Event(), threading.Event(), fcntl.flock

    def in_turn(descriptor, how):
        try:
            flock(descriptor, how)
        except BlockingIOError:
            refused.set()
            raise
        if how & fcntl.LOCK_SH:
            looking.set()
            refused.wait(60)

    monkeypatch.setattr(fcntl, "flock", in_turn)
    monkeypatch.setattr(rundir, "PROBE_S", 100 * rundir.PROBE_S)  # this machine may be slow
    watcher = threading.Thread(target=Run(runs / "finished").is_held)
    watcher.start()
    try:
        assert looking.wait(60)
        Run(runs / "finished").hold().release(force=True)
    finally:
        refused.set()
        watcher.join()


def test_calls_to_a_model_are_added_up_with_lost_ones_at_their_worst(runs):
    usage = Usage(100, 50, 0, 20, 5)
    worst = replace(usage, input_tokens=1000)
    tape, prompt = Tape(runs / "live"), Prompt("", ())

    def call_of(number, *, reply=None, dollars=0.01, **more):
        tape.write(
            CallRecord(
                node=1, call=number, purpose="draft", hash="", describe={},
                system=system_hash(prompt), turns=(), sent="", worst=worst, worst_dollars=0.5,
                reply=reply, dollars=dollars, **more,
            ),
            prompt,
        )  # fmt: skip

    reply = Reply("x", "end", usage, "m", 1.0)
    lost = LostCall(sent="", worst=worst, worst_dollars=0.5)
    call_of(0, status="answered", reply=reply, lost=(lost,))
    call_of(1, status="sent")
    call_of(2, status="answered", reply=reply, replayed=True)
    call_of(3, status="failed")
    now = Follower(runs / "live").look()
    assert now.calls == 3
    assert (now.tokens_in, now.tokens_out) == (150 + 2 * 1050, 60)
    assert now.dollars == pytest.approx(0.01 + 0.5 + 0.5)
    call_of(4, status="answered", reply=reply, dollars=None)
    assert Follower(runs / "live").look().dollars is None
    assert "?" in lines([Follower(runs / "live").look()], width=100)[1]


def test_a_place_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        Watch([tmp_path / "nowhere"]).look()
    done = call("watch", cwd=tmp_path)
    assert "No runs here yet" in done.stdout


def test_on_a_terminal_it_stays_until_q_and_leaves_the_terminal_as_it_was(runs):
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        [*HARNESS, "watch", str(runs)], stdin=theirs, stdout=theirs, stderr=theirs
    )

    def read_until(done):
        """Read what the process draws, until ``done``: a full terminal would block it."""
        end, seen = time.monotonic() + 100, b""
        while not done(seen):
            assert time.monotonic() < end, seen
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 4096)

    try:
        read_until(lambda seen: b"evaluating" in seen)
        journal = runs / "live" / "events.jsonl"
        line = next_line(journal, "chosen", node=3)
        with journal.open("a") as file:
            file.write(line)
        read_until(lambda seen: b"writing" in seen)
        assert process.poll() is None
        os.write(ours, b"q")
        read_until(lambda _: process.poll() is not None)
        assert process.returncode == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)


@pytest.mark.usefixtures("isolating")
def test_a_name_that_is_taken_is_refused_and_that_run_is_left_alone(runs):
    before = (runs / "killed" / "events.jsonl").read_bytes()
    argv = ("run", *TOY, "--name", "killed", "--runs-dir", runs)
    done = call(*argv, cwd=runs, code=2)
    assert f"harness resume {runs}/killed" in done.stderr
    assert (runs / "killed" / "events.jsonl").read_bytes() == before
