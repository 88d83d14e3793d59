"""SIGKILL at any instant: the run resumes to the same tree and the same final score."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from harness.report.tree_view import as_json
from harness.search.journal import read

DRIVER = Path(__file__).parent / "kill_driver.py"
KILLS = 50


def drive(where: Path, how: str, place: Path, phase: str, delay: float, slots: int = 1) -> int:
    argv = [sys.executable, DRIVER, where, how, place, phase, delay, slots]
    argv = [str(word) for word in argv]
    return subprocess.run(argv, timeout=90, check=False, capture_output=True).returncode


def outline(run: Path) -> dict:
    """What must be the same: the tree and the scores, without clocks and audit seeds."""
    shown = as_json(run, None)
    keep = ("node", "operator", "parents", "note", "valid", "score", "reason")
    result = shown["result"]
    return {
        "nodes": [{k: n[k] for k in keep} for n in shown["nodes"]],
        "finalist": shown["finalist"],
        "result": {k: result[k] for k in ("valid", "score", "search_score", "node", "nodes")},
    }


def check_journal(run: Path) -> None:
    """No finished node was evaluated again, and each was scored exactly once."""
    scored: Counter = Counter()
    for event in read(run / "events.jsonl")[0]:
        if event.kind == "evaluating":
            assert not scored[event.data["node"]], f"node {event.data['node']} was done twice"
        elif event.kind == "scored":
            scored[event.data["node"]] += 1
    assert set(scored.values()) == {1}


@pytest.mark.slow
@pytest.mark.usefixtures("isolating")
def test_fifty_kills_change_nothing(tmp_path):
    rng = random.Random(2026)
    where = tmp_path / "where"
    assert drive(where, "new", tmp_path / "whole", "never", 0) == 0
    (whole,) = (tmp_path / "whole").iterdir()
    expected = outline(whole)
    assert expected["result"]["score"] == 1.0
    assert [n["reason"] for n in expected["nodes"]][3] == "runtime_error"

    landed: Counter = Counter()
    torn = runs = 0
    while sum(landed.values()) < KILLS:
        runs += 1
        place = tmp_path / f"runs{runs}"
        how, target = "new", place
        for _ in range(60):
            phase = rng.choice(["training", "serving", "journal"])
            if phase == "journal":
                delay = float(rng.randint(1, 6))
            else:
                delay = rng.uniform(0, 0.3 if phase == "training" else 0.02)
            if sum(landed.values()) >= KILLS:
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
                # A kill inside write() leaves part of a line; inside fsync, all or none of it.
                text = journal.read_bytes()
                last = text.rstrip(b"\n").rfind(b"\n") + 1
                os.truncate(journal, rng.randint(last, len(text) - 1))
                torn += 1
            how, target = "resume", found[0]
        else:
            pytest.fail("the run never finished")
        (run,) = place.iterdir()
        assert outline(run) == expected
        check_journal(run)
    print(f"\n{sum(landed.values())} kills in {runs} runs: {dict(landed)}, {torn} torn lines")
    assert min(landed["training"], landed["serving"], landed["journal"]) >= 5
    assert torn >= 1


def command_of(process: psutil.Process) -> list[str]:
    """Return a process's command line; empty once it is dead, reaped or not."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def start_cli(runs: Path, *more: str) -> subprocess.Popen:
    argv = [sys.executable, "-m", "harness", "run", "--runs-dir", str(runs), *more]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def wait_for(runs: Path, kind: str, count: int = 1, timeout: float = 120) -> Path:
    """Wait until the only run's journal holds ``count`` events of a kind."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        for run in runs.glob("*/events.jsonl"):
            if sum(e.kind == kind for e in read(run)[0]) >= count:
                return run.parent
        time.sleep(0.02)
    raise TimeoutError(f"no {kind} within {timeout} s")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("isolating")
def test_ctrl_c_ends_within_two_seconds_and_leaves_a_run_that_resumes(tmp_path, sent):
    process = start_cli(tmp_path, "--task", "toy", "--profile", "test", "--steps", "3")
    run = wait_for(tmp_path, "evaluating", 2)
    started: list[psutil.Process] = []
    while not any("python" in " ".join(command_of(p)) for p in started):
        started = psutil.Process(process.pid).children(recursive=True)
    began = time.monotonic()
    process.send_signal(sent)
    _, said = process.communicate(timeout=10)
    assert time.monotonic() - began < 2
    assert process.returncode == 130
    assert b"harness resume" in said
    assert [p for p in started if command_of(p)] == []
    done = subprocess.run(
        [sys.executable, "-m", "harness", "resume", str(run), "--json"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout)["score"] == 1.0
    check_journal(run)


@pytest.mark.parametrize(
    ("profile", "steps"),
    [("test", 2), pytest.param("smoke", 1, marks=pytest.mark.timeout(900))],
)
@pytest.mark.slow
@pytest.mark.usefixtures("isolating")
def test_two_kills_of_the_real_task_change_nothing(tmp_path, profile, steps):
    """Trains for real: the seed decides, whether the run was killed or not."""
    more = ("--task", "lra/listops", "--profile", profile, "--steps", str(steps), "--seed", "11")
    whole = start_cli(tmp_path / "whole", *more)
    whole.communicate(timeout=600)
    assert whole.returncode == 0
    (expected,) = (tmp_path / "whole").iterdir()

    killed = tmp_path / "killed"
    first = start_cli(killed, *more)
    run = wait_for(killed, "evaluating", 1)
    time.sleep(1.5)
    first.kill()
    first.communicate(timeout=10)
    second = subprocess.Popen(
        [sys.executable, "-m", "harness", "resume", str(run)], stderr=subprocess.DEVNULL
    )
    wait_for(killed, "finalizing", timeout=400)
    time.sleep(1.0)
    second.kill()
    second.wait(timeout=10)
    subprocess.run([sys.executable, "-m", "harness", "resume", str(run)], check=True, timeout=600)
    assert outline(run) == outline(expected)
    check_journal(run)


def shoot_sandboxes(process: subprocess.Popen, times: int) -> int:
    """Kill the sandbox's outermost process ``times`` times, as a broken machine would."""
    shot = 0
    seen: set[int] = set()
    while process.poll() is None and shot < times:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end while it is looked at
            for child in psutil.Process(process.pid).children():
                if child.pid in seen or child.name() != "bwrap":
                    continue
                below = child.children(recursive=True)
                if any(p.name().startswith("python") for p in below):
                    seen.add(child.pid)
                    child.kill()
                    shot += 1
        time.sleep(0.02)
    return shot


@pytest.mark.usefixtures("isolating")
def test_a_lost_sandbox_is_tried_again_and_the_node_is_graded_as_if_nothing_had_been(tmp_path):
    process = start_cli(tmp_path, "--task", "toy", "--profile", "test", "--steps", "2", "--json")
    assert shoot_sandboxes(process, 1) == 1
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert b"trying again" in said
    assert json.loads(out)["nodes"] == {"scored": 2, "valid": 2}


@pytest.mark.usefixtures("isolating")
def test_infrastructure_that_stays_broken_exits_3_grades_nothing_and_can_be_resumed(tmp_path):
    process = start_cli(tmp_path, "--task", "toy", "--profile", "test", "--steps", "2")
    assert shoot_sandboxes(process, 3) == 3
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3, said
    assert b"harness doctor" in said
    (run,) = tmp_path.iterdir()
    assert [e for e in read(run / "events.jsonl")[0] if e.kind == "scored"] == []
    done = subprocess.run([sys.executable, "-m", "harness", "resume", str(run)], timeout=60)
    assert done.returncode == 0
    check_journal(run)
