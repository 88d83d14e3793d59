"""Stopping a live run: what is under way is finished or dropped, and the best is graded."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.search.journal import read

TOYS = Path(__file__).parent.parent / "toys"
HARNESS = [sys.executable, "-m", "harness"]

pytestmark = pytest.mark.usefixtures("isolating")


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """Make a toy whose designs take so many seconds each, in the order in which they are tried."""

    def make(**seconds):
        folder = tmp_path / "tasks" / "slow"
        shutil.copytree(TOYS / "toy", folder)
        toml = folder / "task.toml"
        text = toml.read_text().replace('name = "toy"', 'name = "slow"')
        toml.write_text(re.sub(r"designs = .*", f"designs = {json.dumps(list(seconds))}", text))
        for name, wanted in seconds.items():
            file = folder / "designs" / f"{name}.py"
            file.write_text(file.read_text().replace("STEP_S = 0.01", f"STEP_S = {wanted / 20}"))
        monkeypatch.setenv("HARNESS_TASKS_DIR", str(tmp_path / "tasks"))

    return make


def start(tmp_path):
    argv = [*HARNESS, "run", "--task", "slow", "--profile", "test", "--steps", "4"]
    argv += ["--name", "one", "--runs-dir", str(tmp_path)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kinds(run):
    return [e.kind for e in read(run / "events.jsonl")[0]]


def wait_for(run, kind, count):
    end = time.monotonic() + 60
    while not (run / "events.jsonl").exists() or kinds(run).count(kind) < count:
        assert time.monotonic() < end, f"no {count} {kind}"
        time.sleep(0.02)


def stop(run, *more, code=0):
    done = subprocess.run(
        [*HARNESS, "stop", str(run), "--json", *more], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)["runs"], done.stderr


def test_the_evaluation_under_way_is_finished_and_the_best_is_graded(tmp_path, slow):
    slow(whole=1.5, half=2, constant=0.1)
    process, run = start(tmp_path), tmp_path / "one"
    wait_for(run, "evaluating", 2)
    (row,), words = stop(run)
    assert row["result"]["nodes"] == {"scored": 2, "valid": 2}
    assert (row["result"]["node"], row["result"]["score"]) == (0, 1.0)
    assert "grading node 0" in words
    out, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Stopped by the user." in said
    assert "accuracy" in out
    assert kinds(run)[-5:] == ["scored", "stopped", "finalizing", "final", "closed"]


def test_now_drops_the_evaluation_under_way_and_leaves_its_node_unscored(tmp_path, slow):
    slow(half=0.1, whole=19, constant=0.1)
    process, run = start(tmp_path), tmp_path / "one"
    wait_for(run, "evaluating", 2)
    began = time.monotonic()
    (row,), _ = stop(run, "--now")
    assert time.monotonic() - began < 12
    assert row["result"]["nodes"] == {"scored": 1, "valid": 1}
    assert (row["result"]["node"], row["result"]["valid"]) == (0, True)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert kinds(run)[-5:] == ["evaluating", "stopped", "finalizing", "final", "closed"]
    shown = subprocess.run([*HARNESS, "show", str(run)], capture_output=True, text=True, check=True)
    assert "1 draft" in shown.stdout


def test_a_run_without_any_valid_node_ends_invalid(tmp_path, slow):
    slow(half=19)
    process, run = start(tmp_path), tmp_path / "one"
    wait_for(run, "evaluating", 1)
    (row,), _ = stop(run, "--now", code=1)
    assert row["result"]["reason"] == "no_valid_node"
    process.communicate(timeout=20)
    assert process.returncode == 1


def test_of_a_dead_run_the_best_is_graded_when_it_is_resumed(tmp_path, slow):
    slow(half=0.1, whole=19)
    process, run = start(tmp_path), tmp_path / "one"
    wait_for(run, "evaluating", 2)
    process.kill()
    process.communicate()
    rows, words = stop(run, code=2)
    assert rows == []
    assert "it was killed" in words
    assert f"harness resume {run}" in words
    began = time.monotonic()
    done = subprocess.run([*HARNESS, "resume", str(run), "--json"], capture_output=True, text=True)
    assert time.monotonic() - began < 15
    assert json.loads(done.stdout)["nodes"] == {"scored": 1, "valid": 1}
    assert kinds(run)[-5:] == ["opened", "stopped", "finalizing", "final", "closed"]
    (row,), words = stop(run)
    assert row["result"]["valid"] is True


def test_no_wait_returns_at_once_and_one_bad_name_keeps_no_other(tmp_path, slow):
    slow(half=3, whole=0.1)
    process, run = start(tmp_path), tmp_path / "one"
    wait_for(run, "evaluating", 1)
    rows, words = stop(tmp_path / "nowhere", str(run), "--no-wait", code=2)
    assert rows == [{"run": str(run), "result": None}]
    assert "There is no run at" in words
    assert not (run / "result.json").exists()
    process.communicate(timeout=30)
    assert json.loads((run / "result.json").read_text())["nodes"]["scored"] == 1
