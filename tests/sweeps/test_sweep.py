"""Sweeps: real runs of the toy task, and pretended ones where a real one cannot fail to order."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from harness.errors import ConfigError
from harness.search.journal import read
from harness.sweeps.offers import FREE, Offer
from harness.sweeps.plan import held, make_plan
from harness.sweeps.sweep import Patience, Sweep
from harness.sweeps.words import exit_code, summary
from tests.report.made_runs import make_run

HERE = Path(__file__).parent
TOYS = HERE.parent / "toys"

SIX = """
format = 1
name = "six"
[defaults]
profile = "test"
steps = 2
[[groups]]
tasks = ["toy"]
agents = ["reference", "random"]
seeds = 2
[[groups]]
tasks = ["toy", "broken-toy"]
agents = ["reference"]
seeds = [9]
"""
THREE = SIX.replace("seeds = 2", "seeds = 1").replace('"toy", "broken-toy"', '"broken-toy"')


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """The toy, and beside it one without a valid design."""
    place = tmp_path / "tasks"
    shutil.copytree(TOYS / "toy", place / "toy")
    shutil.copytree(TOYS / "toy", place / "broken")
    toml = place / "broken" / "task.toml"
    text = toml.read_text().replace('"half", "constant", "whole", "broken"', '"broken"')
    toml.write_text(text.replace('name = "toy"', 'name = "broken-toy"'))
    monkeypatch.setenv("HARNESS_TASKS_DIR", str(place))
    return place


def argv(tmp_path, text=SIX):
    file = tmp_path / "six.toml"
    file.write_text(text)
    runs = ["--runs-dir", str(tmp_path / "runs"), "--concurrent", "3", "--json"]
    return [sys.executable, "-m", "harness", "sweep", str(file), *runs]


def begin(tmp_path):
    return subprocess.Popen(
        argv(tmp_path, THREE),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell puts into the background ignores it, and so would we.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def sweep(tmp_path, code, text=SIX):
    done = subprocess.run(argv(tmp_path, text), capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout), done.stderr


def journals(tmp_path):
    return [read(file)[0] for file in sorted(tmp_path.glob("runs/six/*/events.jsonl"))]


def wait_for(tmp_path, kind, count, timeout=60):
    """Wait until the journals together hold ``count`` events of a kind."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if sum(event.kind == kind for events in journals(tmp_path) for event in events) >= count:
            return
        time.sleep(0.05)
    raise TimeoutError(f"no {count} {kind}")


def processes_of(tmp_path):
    """Return the processes whose command line names this test's folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and str(tmp_path) in " ".join(process.info["cmdline"] or ()):
            found.append(process)
    return found


def check_whole(tmp_path, said, runs):
    """Every run has ended and was made once, whatever happened to the sweep."""
    assert said["counts"] == {"done": runs - 1, "invalid": 1}
    assert len(journals(tmp_path)) == runs
    for events in journals(tmp_path):
        scored = Counter(e.data["node"] for e in events if e.kind == "scored")
        assert set(scored.values()) == {1}
        assert sum(e.kind == "final" for e in events) <= 1


@pytest.mark.usefixtures("isolating", "toys")
def test_six_runs_one_of_them_invalid_and_the_same_command_again_starts_none(tmp_path):
    said, words = sweep(tmp_path, 1)
    check_whole(tmp_path, said, 6)
    assert words.count("started") == 6
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/six/*/events.jsonl")}
    said, words = sweep(tmp_path, 1)
    check_whole(tmp_path, said, 6)
    assert "started" not in words
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/six/*/events.jsonl")}


@pytest.mark.usefixtures("isolating", "toys")
def test_ctrl_c_stops_every_run_well_and_the_same_command_goes_on(tmp_path):
    process = begin(tmp_path)
    wait_for(tmp_path, "evaluating", 3)
    process.send_signal(signal.SIGINT)
    out, words = process.communicate(timeout=30)
    assert process.returncode == 130, words
    assert "Go on with" not in out  # that is for people
    assert json.loads(out)["counts"]["interrupted"] >= 1
    assert processes_of(tmp_path) == []
    for events in journals(tmp_path):
        assert events[-1].kind == "closed"
    said, words = sweep(tmp_path, 1, THREE)
    assert "resumed" in words
    check_whole(tmp_path, said, 3)


@pytest.mark.usefixtures("isolating", "toys")
def test_children_end_with_a_sweep_that_is_killed_and_the_next_one_goes_on(tmp_path):
    process = begin(tmp_path)
    wait_for(tmp_path, "evaluating", 3)
    process.kill()
    process.communicate()
    end = time.monotonic() + 20
    while (alive := processes_of(tmp_path)) and time.monotonic() < end:
        time.sleep(0.05)
    assert alive == []
    said, words = sweep(tmp_path, 1, THREE)
    assert "resumed" in words
    check_whole(tmp_path, said, 3)


# From here on children only pretend.

QUICK = Patience(back_off_s=0.05, pause_s=0.3, look_s=0.02)

PLAY = """
format = 1
name = "play"
[[groups]]
tasks = ["toy"]
profile = "test"
agents = {agents}
seeds = {seeds}
"""


class Play:
    """A sweep whose children do what ``plays`` says, agent by agent."""

    def __init__(self, tmp_path, plays, *, seeds=1, offers=None, more=""):
        self.plays = tmp_path / "plays.json"
        self.plays.write_text(json.dumps(plays))
        file = tmp_path / "play.toml"
        file.write_text(PLAY.format(agents=json.dumps(list(plays)), seeds=seeds) + more)
        offers = offers or {}
        self.plan = make_plan(file, tmp_path / "runs", lambda agent: offers.get(agent, FREE))
        self.said: list[str] = []

    def sweep(self, concurrent=1, max_dollars=None, patience=QUICK):
        command = [sys.executable, str(HERE / "fake_harness.py"), str(self.plays)]
        with held(self.plan):
            sweep = Sweep(
                self.plan,
                concurrent=concurrent,
                max_dollars=max_dollars,
                say=self.said.append,
                command=command,
                patience=patience,
            )
            sweep.run()
        return sweep

    @property
    def calls(self):
        file = Path(f"{self.plays}.calls")
        return [json.loads(line) for line in file.read_text().splitlines()]


def states(sweep):
    return {(slot.run.agent, slot.run.seed): slot.state for slot in sweep.slots}


def test_what_our_side_broke_is_tried_again_a_few_times_and_no_other_run_suffers(tmp_path):
    play = Play(tmp_path, {"a": [3, "kill", 0], "b": [70], "c": [0]})
    sweep = play.sweep(concurrent=3)
    assert states(sweep) == {("a", 0): "done", ("b", 0): "failed", ("c", 0): "done"}
    assert Counter(call["agent"] for call in play.calls) == {"a": 3, "b": 3, "c": 1}
    assert exit_code(sweep) == 3
    text = "\n".join(summary(sweep, "harness sweep again"))
    assert "1 failed: it was exit 70" in text
    assert "Go on with: harness sweep again" in text
    assert "\x1b" not in text


def test_a_refused_run_is_not_tried_again_until_the_next_sweep(tmp_path):
    play = Play(tmp_path, {"a": [2, 0], "b": [0]}, seeds=2)
    first = play.sweep()
    assert states(first)[("a", 0)] == "refused"
    assert exit_code(first) == 2
    assert len(play.calls) == 4
    second = play.sweep()
    assert set(states(second).values()) == {"done"}
    assert exit_code(second) == 0
    assert len(play.calls) == 5


def test_a_provider_that_is_out_pauses_its_own_runs_only(tmp_path):
    offers = {name: Offer(provider=p) for name, p in (("a", "out"), ("b", "out"), ("c", "fine"))}
    play = Play(tmp_path, {"a": [4, 0], "b": [0], "c": [0]}, seeds=2, offers=offers)
    began = time.monotonic()
    sweep = play.sweep()
    assert time.monotonic() - began > QUICK.pause_s
    assert set(states(sweep).values()) == {"done"}
    # The others' runs go on meanwhile; then everything that was left.
    assert [call["agent"] for call in play.calls[:3]] == ["a", "c", "c"]
    pauses = [line for line in play.said if "pause" in line]
    assert len(pauses) == 1
    assert "out: its runs pause" in pauses[0]


def test_a_provider_that_stays_out_is_given_up_and_the_others_are_done(tmp_path):
    offers = {"a": Offer(provider="out"), "b": Offer(provider="fine")}
    play = Play(tmp_path, {"a": [4], "b": [0]}, seeds=2, offers=offers)
    patience = Patience(pause_s=0.05, longest_pause_s=0.1, strikes=3, look_s=0.02)
    sweep = play.sweep(patience=patience)
    assert Counter(states(sweep).values()) == {"paused": 2, "done": 2}
    assert exit_code(sweep) == 4
    assert Counter(call["agent"] for call in play.calls) == {"a": 3, "b": 2}


def test_a_providers_failures_do_not_use_up_the_tries_for_ours(tmp_path):
    play = Play(tmp_path, {"a": [4, 4, 4, 3, 0]}, offers={"a": Offer(provider="out")})
    patience = Patience(back_off_s=0.02, pause_s=0.02, longest_pause_s=0.02, look_s=0.02)
    assert states(play.sweep(patience=patience)) == {("a", 0): "done"}


def test_a_second_ctrl_c_kills_what_does_not_listen_to_the_first(tmp_path):
    play = Play(tmp_path, {"a": ["hang"], "b": [0]}, seeds=2)
    for after in (1.0, 1.6):
        threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    sweep = play.sweep(concurrent=2)
    assert 1.5 < time.monotonic() - began < 10
    assert Counter(states(sweep).values())["interrupted"] >= 1
    assert [line for line in play.said if "kill" in line][1].startswith("killing")
    assert exit_code(sweep) == 130


PAID = {"a": Offer(provider="p", price=lambda usage: 1.0)}


def test_dollars_are_shared_and_each_run_is_told_its_share(tmp_path):
    play = Play(tmp_path, {"a": [0], "free": [0]}, seeds=4, offers=PAID)
    sweep = play.sweep(max_dollars=4.0)
    assert sweep.share == 1.0
    given = {(call["agent"], call.get("max-dollars")) for call in play.calls}
    assert given == {("a", "1.000000"), ("free", None)}
    assert sweep.spent == 1.0  # four times 0.25
    assert exit_code(sweep) == 0


def test_a_share_that_is_nothing_starts_nothing_that_costs(tmp_path):
    play = Play(tmp_path, {"a": [0], "free": [0]}, seeds=4, offers=PAID)
    assert Counter(states(play.sweep(max_dollars=0.03)).values()) == {"unaffordable": 4, "done": 4}


def test_no_run_is_started_that_could_take_the_sum_beyond_the_limit(tmp_path):
    # Each may spend $1 and spends 0.25: of $1.60 the first leaves 1.35, the second 1.10, the
    # third 0.85, which is not enough for a fourth. What costs nothing is started all the same.
    play = Play(tmp_path, {"a": [0], "free": [0]}, seeds=5, offers=PAID, more="dollars = 1\n")
    sweep = play.sweep(max_dollars=1.60)
    assert Counter(slot.state for slot in sweep.slots if slot.run.agent == "a") == {
        "done": 3,
        "unaffordable": 2,
    }
    assert {slot.state for slot in sweep.slots if slot.run.agent == "free"} == {"done"}
    assert exit_code(sweep) == 1
    # Side by side each keeps its dollar while it runs: never two at once within $1.60.
    again = play.sweep(max_dollars=2.25, concurrent=4)
    assert again.spent == 1.25
    assert {slot.state for slot in again.slots} == {"done"}


def test_runs_side_by_side_keep_their_whole_limit_until_they_end(tmp_path):
    play = Play(tmp_path, {"a": [0]}, seeds=3, offers=PAID, more="dollars = 1\n")
    seen = []

    class Watched(Sweep):
        def _reap(self):
            seen.append(len(self.running))
            super()._reap()

    command = [sys.executable, str(HERE / "fake_harness.py"), str(play.plays)]
    sweep = Watched(
        play.plan, concurrent=3, max_dollars=2.1, say=play.said.append, command=command,
        patience=QUICK,
    )  # fmt: skip
    sweep.run()
    assert max(seen) == 2
    assert Counter(states(sweep).values()) == {"done": 3}


def test_a_directory_that_was_left_half_made_is_made_anew_but_nothing_else_is_removed(tmp_path):
    play = Play(tmp_path, {"a": [0], "b": [0]})
    half, strange = (play.plan.folder / one.run.name for one in play.plan.estimates)
    (half / "nodes").mkdir(parents=True)
    (half / "lock.json").write_text("{}")
    strange.mkdir()
    (strange / "thesis.tex").write_text("mine")
    sweep = play.sweep()
    assert states(sweep) == {("a", 0): "done", ("b", 0): "refused"}
    assert (strange / "thesis.tex").read_text() == "mine"


def test_a_damaged_run_is_refused_and_left_as_it_is(tmp_path):
    play = Play(tmp_path, {"a": [0], "b": [0], "c": [0]})
    torn, toml, listed = (play.plan.folder / one.run.name for one in play.plan.estimates)
    for folder, name, text in (
        (torn, "result.json", '{"valid": '),
        (toml, "run.toml", "format = 1\ntask = "),
        (listed, "result.json", "[]"),
    ):
        folder.mkdir(parents=True)
        (folder / name).write_text(text)
    sweep = play.sweep()
    assert set(states(sweep).values()) == {"refused"}
    assert (toml / "run.toml").read_text() == "format = 1\ntask = "
    assert not Path(f"{play.plays}.calls").exists()


def test_a_finished_run_whose_run_toml_was_edited_is_not_taken_for_what_was_planned(tmp_path):
    play = Play(tmp_path, {"a": [0]})
    folder = play.plan.folder / play.plan.estimates[0].run.name
    toml = make_run(play.plan.folder, name=folder.name) / "run.toml"
    toml.write_text(toml.read_text().replace("seed = 0", "seed = 1"))
    sweep = play.sweep()
    assert states(sweep) == {("a", 0): "refused"}
    assert "edited" in sweep.slots[0].message


def test_one_folder_has_one_sweep_at_a_time(tmp_path):
    play = Play(tmp_path, {"a": [0]})
    with held(play.plan), pytest.raises(ConfigError, match="Another sweep"):
        play.sweep()
    play.sweep()
