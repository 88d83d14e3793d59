"""Killed at any instant, a run resumes to the same tree and the same final score."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest
from calling import call
from held import Held, kinds, under_way
from observing import PATIENCE_S, quiet, until

from harness.base.errors import SandboxLostError
from harness.core.asked import Asked
from harness.launch.run import resume, start
from harness.report.tree_view import as_json
from harness.search import local
from harness.store import training
from harness.store.journal import read

DRIVER = Path(__file__).parent / "kill_driver.py"

pytestmark = pytest.mark.usefixtures("isolating")


def drive(where: Path, how: str, place: Path, phase: str, delay: float, slots: int = 1) -> int:
    argv = [sys.executable, DRIVER, where, how, place, phase, delay, slots]
    argv = [str(word) for word in argv]
    return subprocess.run(argv, timeout=200, check=False, capture_output=True).returncode


def outline(run: Path) -> dict:
    """Return what must be the same: the tree and the scores, without times and audit seeds."""
    shown = as_json(run, None)
    keep = ("node", "operator", "parents", "note", "valid", "score", "reason")
    result = shown["result"]
    return {
        "nodes": [{k: n[k] for k in keep} for n in shown["nodes"]],
        "finalist": shown["finalist"],
        "result": {k: result[k] for k in ("valid", "score", "search_score", "node", "nodes")},
    }


def check_journal(run: Path) -> None:
    """Assert that no finished node was evaluated again and each was scored exactly once."""
    scored: Counter = Counter()
    for event in read(run / "events.jsonl"):
        if event.kind == "evaluating":
            assert not scored[event.data["node"]], f"node {event.data['node']} was done twice"
        elif event.kind == "scored":
            scored[event.data["node"]] += 1
    assert set(scored.values()) == {1}


@pytest.fixture
def expected(tmp_path):
    """The outline of the driver's run if nobody kills it."""
    asked = Asked(task="toy", profile="test", steps=4, seed=5)
    start(asked, tmp_path / "whole", progress=quiet, observe=quiet)
    (run,) = (tmp_path / "whole").iterdir()
    found = outline(run)
    assert found["result"]["score"] == 1.0
    assert [n["reason"] for n in found["nodes"]][3] == "runtime_error"
    return found


def tear(journal: Path, rng: random.Random) -> None:
    """Cut the last line short, as a kill in write() can; one in fsync leaves all or none of it."""
    text = journal.read_bytes()
    last = text.rstrip(b"\n").rfind(b"\n") + 1
    os.truncate(journal, rng.randint(last, len(text) - 1))


def test_a_kill_while_a_line_is_written_and_one_while_it_trains_change_nothing(tmp_path, expected):
    where, runs = tmp_path / "where", tmp_path / "runs"
    assert drive(where, "new", runs, "journal", 4) == -signal.SIGKILL
    assert where.read_text() == "journal"
    (run,) = runs.iterdir()
    assert kinds(run)[-2:] == ["scored", "chosen"]
    tear(run / "events.jsonl", random.Random(2026))
    where.unlink()
    assert drive(where, "resume", run, "training", 0) == -signal.SIGKILL
    assert where.read_text() == "training"
    resume(run, progress=quiet, observe=quiet)
    assert outline(run) == expected
    check_journal(run)


@pytest.mark.timeout(1800)
@pytest.mark.nightly
def test_kills_at_any_instant_change_nothing(tmp_path, expected):
    kills = 50
    rng = random.Random(2026)
    where = tmp_path / "where"
    landed: Counter = Counter()
    torn = 0
    for runs in range(kills):  # if these are too few, nearly every kill missed
        place = tmp_path / f"runs{runs}"
        how, target = "new", place
        for _ in range(60):
            phase = rng.choice(["training", "serving", "journal"])
            if phase == "journal":
                delay = float(rng.randint(1, 6))
            else:
                delay = rng.uniform(0, 0.3 if phase == "training" else 0.02)
            if sum(landed.values()) >= kills:
                phase = "never"
            where.unlink(missing_ok=True)
            code = drive(where, how, target, phase, delay)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            landed[where.read_text()] += 1
            found = list(place.iterdir())
            assert len(found) == 1
            journal = found[0] / "events.jsonl"
            if not (found[0] / "run.toml").exists():
                pytest.fail("a run directory without run.toml cannot be resumed")
            if rng.random() < 0.6 and journal.exists() and where.read_text() == "journal":
                tear(journal, rng)
                torn += 1
            how, target = "resume", found[0]
        else:
            pytest.fail("the run never finished")
        (run,) = place.iterdir()
        assert outline(run) == expected
        check_journal(run)
        if sum(landed.values()) >= kills:
            break
    print(f"\n{sum(landed.values())} kills in {runs + 1} runs: {dict(landed)}, {torn} torn lines")
    assert sum(landed.values()) >= kills
    assert min(landed["training"], landed["serving"], landed["journal"]) >= kills // 10
    assert torn >= 1


def command_of(process: psutil.Process) -> list[str]:
    """Return a process's command line; empty once it is dead, reaped or not."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def family(pid: int) -> list[psutil.Process]:
    """Return all processes below ``pid`` once a candidate is among them; else an empty list."""
    try:
        harness = psutil.Process(pid)
        below = harness.children(recursive=True)
        # A child between fork and exec still looks like the harness.
        own = ([], harness.cmdline())
        seen = any(p.name().startswith("python") and command_of(p) not in own for p in below)
    except psutil.NoSuchProcess:
        return []
    return below if seen else []


def start_cli(runs: Path, *more: str) -> subprocess.Popen:
    argv = [sys.executable, "-m", "harness", "run", "--runs-dir", str(runs), "--name", "a", *more]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


@pytest.fixture
def held(tmp_path, monkeypatch):
    made = Held(tmp_path / "tasks", monkeypatch)
    yield made
    made.let_go()


@pytest.mark.parametrize(
    "sent",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_ends_what_would_go_on_and_leaves_a_run_that_resumes(tmp_path, held, sent):
    held.offer("half", "held", held="held")
    run = tmp_path / "runs/a"
    process = start_cli(tmp_path / "runs", "--task", "held", "--profile", "test", "--steps", "2")
    try:
        under_way(run, 2)
        started = until(lambda: family(process.pid), "a candidate of the second evaluation")
        process.send_signal(sent)
        _, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"harness resume" in said
    assert [p for p in started if command_of(p)] == []
    held.let_go()
    assert json.loads(call("resume", run, "--json").stdout)["score"] == 1.0
    check_journal(run)


@pytest.mark.nightly
@pytest.mark.parametrize("profile", ["test", "smoke"])
@pytest.mark.timeout(1800)
def test_two_kills_of_the_real_task_change_nothing(tmp_path, profile):
    """Trains the real task: the seed alone decides the result, killed or not."""
    more = ("--task", "lra/listops", "--profile", profile, "--steps", "1", "--seed", "11")
    whole = start_cli(tmp_path / "whole", *more)
    whole.communicate(timeout=600)
    assert whole.returncode == 0

    run = tmp_path / "killed/a"

    def trains():  # a short training is killed while it imports torch
        return any(claim.step for claim in training.read(run).trainings) or profile == "test"

    first = start_cli(tmp_path / "killed", *more)
    again = [sys.executable, "-m", "harness", "resume", str(run)]
    for at in ("evaluating", "finalizing"):
        until(lambda: at in kinds(run) and family(first.pid) and trains(), at, 600)  # noqa: B023
        first.kill()
        first.communicate(timeout=PATIENCE_S)
        assert kinds(run)[-1] == at
        first = subprocess.Popen(again, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first.communicate(timeout=600)
    assert first.returncode == 0
    assert outline(run) == outline(tmp_path / "whole/a")
    check_journal(run)


class Shooter:
    """Kills the outermost process of the first ``times`` sandboxes, as a broken machine would."""

    def __init__(self, times: int) -> None:
        self.times, self.shot, self.retries = times, 0, 0

    def __call__(self, what: str, label: str, details: dict) -> None:
        self.retries += what == "retry"
        if what == "progress" and self.shot == self.retries < self.times:
            (outermost,) = [p for p in psutil.Process().children() if p.name() == "bwrap"]
            outermost.kill()
            self.shot += 1


@pytest.fixture
def lossy(tmp_path, monkeypatch):
    """Return a function that runs the toy while a ``Shooter`` kills its sandboxes."""
    monkeypatch.setattr(local, "BACK_OFF_S", 0.01)

    def run(shooter: Shooter) -> dict:
        asked = Asked(task="toy", profile="test", steps=2, sandbox="bubblewrap")
        return start(asked, tmp_path, name="a", progress=quiet, observe=shooter)

    return run


def test_a_lost_sandbox_is_tried_again_and_the_node_is_graded_as_if_nothing_had_been(lossy):
    shooter = Shooter(1)
    assert lossy(shooter)["nodes"] == {"scored": 2, "valid": 2}
    assert (shooter.shot, shooter.retries) == (1, 1)


def test_infrastructure_that_stays_broken_exits_3_grades_nothing_and_can_be_resumed(
    tmp_path, lossy
):
    shooter = Shooter(3)
    with pytest.raises(SandboxLostError) as caught:
        lossy(shooter)
    assert (shooter.shot, shooter.retries) == (3, 2)
    assert caught.value.exit_code == 3
    assert caught.value.remedy == "harness doctor"
    assert "scored" not in kinds(tmp_path / "a")
    assert resume(tmp_path / "a", progress=quiet, observe=quiet)["nodes"]["scored"] == 2
    check_journal(tmp_path / "a")
