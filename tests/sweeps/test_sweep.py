"""Sweeps: real runs of the toy task, and fake ones where a real run cannot fail on purpose."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from calling import HARNESS, call
from observing import until
from report.made_runs import make_run

from harness.base.errors import ConfigError
from harness.store.index import entries
from harness.store.journal import read
from harness.sweeps.agent_info import FREE, AgentInfo
from harness.sweeps.plan import held, make_plan
from harness.sweeps.sweep import Sweep, SweepRetries
from harness.sweeps.words import exit_code, summary

HERE = Path(__file__).parent

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
TWO = """
format = 1
name = "six"
[[groups]]
tasks = ["toy", "broken-toy"]
agents = ["reference"]
profile = "test"
steps = 1
sandbox = "process"
"""
ONE = TWO.replace('"toy", "broken-toy"', '"toy"')


@pytest.fixture
def toys(changed_toy):
    """The folder with the toy task, and with a copy of it that has no valid design."""
    designs = ('"half", "constant", "whole", "broken"', '"broken"')
    changed_toy(('name = "toy"', 'name = "broken-toy"'), designs, name="broken")
    return changed_toy().parent


@pytest.fixture
def no_process_left(tmp_path):
    """Kill what still runs after the test: nothing does, unless the test failed."""
    yield
    for process in processes_of(tmp_path):
        process.kill()


@pytest.fixture
def gate(toys, tmp_path, no_process_left):
    """A file that every design waits for, so that a test decides when evaluations go on."""
    file = tmp_path / "gate"
    # Only with all steps of the profile: the self-test of the sandbox has fewer and does not wait.
    waits = f"while config['settings']['steps'] == 20 and not Path({str(file)!r}).exists():"
    for design in toys.glob("*/designs/*.py"):
        text = f"import time\nfrom pathlib import Path\n{waits}\n    time.sleep(0.02)\n"
        design.write_text(f"{design.read_text()}\n{text}")
    for toml in toys.glob("*/task.toml"):
        toml.write_text(toml.read_text().replace("train_s = 20,", "train_s = 600,"))
    return file


def argv(tmp_path, text):
    file = tmp_path / "six.toml"
    file.write_text(text)
    runs = ["--runs-dir", str(tmp_path / "runs"), "--concurrent", "3", "--json"]
    return ["sweep", str(file), *runs]


def begin(tmp_path, text, runs):
    """Start a sweep; return its process when all its ``runs`` are in an evaluation."""
    process = subprocess.Popen(
        [*HARNESS, *argv(tmp_path, text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: process.poll() or evaluating(tmp_path) == runs, "evaluations")
    return process


def sweep(tmp_path, text, code=0):
    """Sweep in this process; the runs are child processes as usual. Return JSON and stderr."""
    done = call(*argv(tmp_path, text), code=code)
    return done.json, done.stderr


def journals(tmp_path):
    return [read(file) for file in sorted(tmp_path.glob("runs/six/*/events.jsonl"))]


def evaluating(tmp_path):
    return sum(e.kind == "evaluating" for events in journals(tmp_path) for e in events)


def processes_of(tmp_path):
    """Return the processes whose command line names this test's folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and str(tmp_path) in " ".join(process.info["cmdline"] or ()):
            found.append(process)
    return found


def check_whole(tmp_path, said, **counts):
    """Assert that every run has ended, and that no run and no node was made twice."""
    assert said["counts"] == counts
    assert [e.path for e in entries([tmp_path / "runs"]) if e.state == "skipped"] == []
    assert len(journals(tmp_path)) == sum(counts.values())
    for events in journals(tmp_path):
        scored = Counter(e.data["node"] for e in events if e.kind == "scored")
        assert set(scored.values()) == {1}
        assert sum(e.kind == "final" for e in events) <= 1


@pytest.mark.nightly
@pytest.mark.usefixtures("isolating", "toys")
def test_six_runs_one_of_them_invalid_and_the_same_command_again_starts_none(tmp_path):
    said, words = sweep(tmp_path, SIX, 1)
    check_whole(tmp_path, said, done=5, invalid=1)
    assert words.count("started") == 6
    said, words = sweep(tmp_path, SIX, 1)
    check_whole(tmp_path, said, done=5, invalid=1)
    assert "started" not in words


@pytest.mark.slow
def test_ctrl_c_stops_a_run_well_and_the_same_command_goes_on_and_then_starts_none(tmp_path, gate):
    process = begin(tmp_path, ONE, 1)
    process.send_signal(signal.SIGINT)
    out, words = process.communicate(timeout=120)
    assert process.returncode == 130, words
    assert "Traceback" not in words
    assert "Go on with" not in out  # that hint is for people, not for --json
    assert json.loads(out)["counts"] == {"interrupted": 1}
    assert processes_of(tmp_path) == []
    assert [events[-1].kind for events in journals(tmp_path)] == ["closed"]
    gate.touch()
    said, words = sweep(tmp_path, ONE)
    assert words.count("resumed") == 1
    check_whole(tmp_path, said, done=1)
    before = journals(tmp_path)
    said, words = sweep(tmp_path, ONE)
    check_whole(tmp_path, said, done=1)
    assert not re.search("started|resumed", words)
    assert journals(tmp_path) == before


@pytest.mark.slow
def test_real_runs_end_with_a_sweep_that_is_killed_and_the_next_one_goes_on(tmp_path, gate):
    process = begin(tmp_path, TWO, 2)
    process.kill()
    process.communicate(timeout=120)
    until(lambda: not processes_of(tmp_path), "the end of every child")
    gate.touch()
    said, words = sweep(tmp_path, TWO, 1)
    assert words.count("resumed") == 2
    check_whole(tmp_path, said, done=1, invalid=1)


# From here on, the child processes are fake runs (fake_harness.py).

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
    """A sweep whose children do what ``plays`` says for each agent; see fake_harness.py.

    Its clock advances only while no child runs, so no pause ends while a child still works.
    """

    def __init__(self, tmp_path, plays, *, seeds=1, offers=None, more=""):
        self.plays = tmp_path / "plays.json"
        self.plays.write_text(json.dumps(plays))
        self.file = tmp_path / "play.toml"
        self.file.write_text(PLAY.format(agents=json.dumps(list(plays)), seeds=seeds) + more)
        offers = offers or {}
        self.plan = make_plan(self.file, tmp_path / "runs", lambda agent: offers.get(agent, FREE))
        self.said: list[str] = []
        self.now = 0.0
        self.at_once = 0

    def sweep(self, concurrent=1, max_dollars=None):
        def sleep(seconds):
            self.at_once = max(self.at_once, len(sweep.running))
            if sweep.running:
                time.sleep(0.005)
            else:
                self.now += seconds

        command = [sys.executable, "-IS", str(HERE / "fake_harness.py"), str(self.plays)]
        sweep = Sweep(
            self.plan, concurrent=concurrent, max_dollars=max_dollars, say=self.said.append,
            command=command, patience=SweepRetries(look_s=1.0), now=lambda: self.now, sleep=sleep,
        )  # fmt: skip
        with held(self.plan):
            sweep.run()
        return sweep

    def begin(self, tmp_path):
        """Start the sweep as a process of its own; its output goes to the file ``said``."""
        command = [sys.executable, str(HERE / "fake_sweep.py"), str(self.file)]
        with (tmp_path / "said").open("w") as said:
            return subprocess.Popen(
                [*command, str(tmp_path / "runs"), str(self.plays)], stdout=said, stderr=said
            )

    @property
    def calls(self):
        return self._lines("calls")

    @property
    def deaf(self):
        """The ids of the processes that ignore Ctrl-C by now."""
        return self._lines("deaf")

    def _lines(self, kind):
        file = Path(f"{self.plays}.{kind}")
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def states(sweep):
    return {(slot.run.asked.agent, slot.run.asked.seed): slot.state for slot in sweep.slots}


def test_what_our_side_broke_is_tried_again_a_few_times_and_no_other_run_suffers(tmp_path):
    play = Play(tmp_path, {"a": [3, "kill", 0], "b": [70], "c": [0], "d": ["invalid"]})
    sweep = play.sweep(concurrent=4)
    assert [slot.state for slot in sweep.slots] == ["done", "failed", "done", "invalid"]
    assert Counter(call["agent"] for call in play.calls) == {"a": 3, "b": 3, "c": 1, "d": 1}
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
    offers = {
        name: AgentInfo(provider=p) for name, p in (("a", "out"), ("b", "out"), ("c", "fine"))
    }
    play = Play(tmp_path, {"a": [4, 0], "b": [0], "c": [0]}, seeds=2, offers=offers)
    sweep = play.sweep()
    assert 300 <= play.now < 310
    assert set(states(sweep).values()) == {"done"}
    # Runs of the other provider go on meanwhile; after the pause, all that were left.
    assert [call["agent"] for call in play.calls] == ["a", "c", "c", "a", "b", "a", "b"]
    pauses = [line for line in play.said if "pause" in line]
    assert len(pauses) == 1
    assert "out: its runs pause for 300 s" in pauses[0]


def test_a_provider_that_stays_out_is_given_up_and_the_others_are_done(tmp_path):
    offers = {"a": AgentInfo(provider="out"), "b": AgentInfo(provider="fine")}
    play = Play(tmp_path, {"a": [4], "b": [0]}, seeds=2, offers=offers)
    sweep = play.sweep()
    assert Counter(states(sweep).values()) == {"paused": 2, "done": 2}
    assert exit_code(sweep) == 4
    assert Counter(call["agent"] for call in play.calls) == {"a": 6, "b": 2}
    waited = 300 + 600 + 1200 + 2400 + 3600
    assert waited <= play.now < waited + 10


def test_a_providers_failures_do_not_use_up_the_tries_for_ours(tmp_path):
    play = Play(tmp_path, {"a": [4, 4, 4, 3, 0]}, offers={"a": AgentInfo(provider="out")})
    assert states(play.sweep()) == {("a", 0): "done"}


@pytest.mark.usefixtures("no_process_left")
def test_a_second_ctrl_c_kills_what_does_not_listen_to_the_first(tmp_path):
    play = Play(tmp_path, {"a": ["hang"], "b": [0]}, seeds=2)
    process = play.begin(tmp_path)
    said = tmp_path / "said"
    until(lambda: len(play.deaf) == 2, "two runs that hear no Ctrl-C")
    process.send_signal(signal.SIGINT)
    until(lambda: "stopping (Ctrl-C again kills): 2 runs" in said.read_text(), "the first Ctrl-C")
    assert set(play.deaf) <= {p.pid for p in processes_of(tmp_path)}
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130, said.read_text()
    assert "killing: 2 runs" in said.read_text()
    assert said.read_text().count("interrupted") == 2
    assert processes_of(tmp_path) == []


@pytest.mark.usefixtures("no_process_left")
def test_children_end_with_a_sweep_that_is_killed_and_the_next_one_goes_on(tmp_path):
    play = Play(tmp_path, {"a": ["hang", "hang", 0]}, seeds=2)
    process = play.begin(tmp_path)
    until(lambda: len(play.deaf) == 2, "two runs")
    process.kill()
    assert process.wait(120) == -signal.SIGKILL
    until(lambda: not processes_of(tmp_path), "the end of every child")
    assert states(play.sweep()) == {("a", 0): "done", ("a", 1): "done"}


PAID = {"a": AgentInfo(provider="p", price=lambda usage: 1.0)}


def test_dollars_are_shared_and_each_run_is_told_its_share(tmp_path):
    play = Play(tmp_path, {"a": [0], "free": [0]}, seeds=4, offers=PAID)
    sweep = play.sweep(max_dollars=4.0)
    assert sweep.share == 1.0
    given = {(call["agent"], call.get("dollars")) for call in play.calls}
    assert given == {("a", 1.0), ("free", None)}
    assert sweep.spent == 1.0  # four times 0.25
    assert exit_code(sweep) == 0


def test_a_share_that_is_nothing_starts_nothing_that_costs(tmp_path):
    play = Play(tmp_path, {"a": [0], "free": [0]}, seeds=4, offers=PAID)
    assert Counter(states(play.sweep(max_dollars=0.03)).values()) == {"unaffordable": 4, "done": 4}


def test_no_run_is_started_that_could_take_the_sum_beyond_the_limit(tmp_path):
    # Each run may spend $1 and spends $0.25: of $1.60 the first leaves 1.35, the second 1.10, the
    # third 0.85, which is not enough for a fourth. Free runs are started all the same.
    play = Play(tmp_path, {"a": [0], "free": [0]}, seeds=5, offers=PAID, more="dollars = 1\n")
    sweep = play.sweep(max_dollars=1.60)
    assert Counter(slot.state for slot in sweep.slots if slot.run.asked.agent == "a") == {
        "done": 3,
        "unaffordable": 2,
    }
    assert {slot.state for slot in sweep.slots if slot.run.asked.agent == "free"} == {"done"}
    assert exit_code(sweep) == 1
    # With four slots, each run reserves $1 while it runs: $1.50 are left, so no two run at once.
    again = play.sweep(max_dollars=2.25, concurrent=4)
    assert play.at_once == 1
    assert again.spent == 1.25
    assert {slot.state for slot in again.slots} == {"done"}


def test_runs_side_by_side_keep_their_whole_limit_until_they_end(tmp_path):
    play = Play(tmp_path, {"a": [0]}, seeds=3, offers=PAID, more="dollars = 1\n")
    sweep = play.sweep(concurrent=3, max_dollars=2.1)
    assert play.at_once == 2
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
    assert states(play.sweep()) == {("a", 0): "done"}
