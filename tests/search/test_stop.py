"""Stopping a live run: evaluations under way end or are dropped, and the best node is graded."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from held import Held, kinds, under_way
from observing import PATIENCE_S, interrupting, quiet, until

from harness.base.errors import Cancelled
from harness.cli.app import app
from harness.cli.edge import run_and_report
from harness.core.asked import Asked
from harness.launch import stopping
from harness.launch.run import start
from harness.search import loop


@pytest.fixture
def held(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "POLL_S", 0.01)
    monkeypatch.setattr(loop, "POLL_S", 0.01)
    made = Held(tmp_path / "tasks", monkeypatch)
    yield made
    made.let_go()


@pytest.fixture
def run(tmp_path):
    return tmp_path / "one"


def work(run, observe=quiet):
    asked = Asked(task="held", profile="test", steps=4, sandbox="process")
    return start(asked, run.parent, name=run.name, progress=quiet, observe=observe)


@pytest.fixture
def begun(held, run):
    """Return a function that begins a run in a thread, awaits evaluations, and returns a future."""
    with ThreadPoolExecutor(1) as thread:

        def begin(evaluations):
            result = thread.submit(work, run)
            until(lambda: result.done() or kinds(run).count("evaluating") >= evaluations, "begun")
            return result

        yield begin
        held.let_go()


@pytest.fixture
def stop(capsys):
    def call(*words, code=0):
        capsys.readouterr()
        found = run_and_report(lambda: app(["stop", "--json", *map(str, words)]))
        out, said = capsys.readouterr()
        assert found == code, said
        return json.loads(out)["runs"], said

    return call


def test_the_evaluation_under_way_is_finished_and_the_best_is_graded(
    held, run, begun, stop, monkeypatch
):
    held.offer("first", "second", "constant", held="first second")
    held.let_go("first")
    result, said = begun(2), []
    held.hold("first")  # until ``echo`` has seen that its grading has begun

    def echo(words, err):
        said.append(words)
        held.let_go("second" if "under way" in words else "first" if "grading" in words else "")

    monkeypatch.setattr("harness.cli.stop.typer.echo", echo)
    (row,), _ = stop(run)
    assert row["result"] == result.result(PATIENCE_S)
    assert row["result"]["nodes"] == {"scored": 2, "valid": 2}
    assert (row["result"]["node"], row["result"]["score"]) == (0, 1.0)
    assert any("grading node 0" in words for words in said)
    assert kinds(run)[-5:] == ["scored", "stopped", "finalizing", "final", "closed"]


def test_now_drops_the_evaluation_under_way_and_leaves_its_node_unscored(
    held, run, begun, stop, capsys
):
    held.offer("half", "never", "constant", held="never")
    result = begun(2)
    (row,), _ = stop(run, "--now")
    assert row["result"] == result.result(PATIENCE_S)
    assert row["result"]["nodes"] == {"scored": 1, "valid": 1}
    assert (row["result"]["node"], row["result"]["valid"]) == (0, True)
    assert kinds(run)[-5:] == ["evaluating", "stopped", "finalizing", "final", "closed"]
    assert run_and_report(lambda: app(["show", str(run)])) == 0
    assert "1 draft" in capsys.readouterr().out


def test_a_run_without_any_valid_node_ends_invalid(held, run, begun, stop):
    held.offer("never", held="never")
    result = begun(1)
    (row,), _ = stop(run, "--now", code=1)
    assert row["result"]["reason"] == "no_valid_node"
    assert result.result(PATIENCE_S)["valid"] is False


def test_of_a_dead_run_the_best_is_graded_when_it_is_resumed(held, run, stop, capsys):
    held.offer("half", "never", held="never")
    with pytest.raises(Cancelled):
        work(run, interrupting("evaluating", "1"))
    journal = run / "events.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert b'"closed"' in lines[-1]
    journal.write_bytes(b"".join(lines[:-1]))  # as SIGKILL leaves it
    rows, words = stop(run, code=2)
    assert rows == []
    assert "it was killed" in words
    assert f"harness resume {run}" in words
    assert run_and_report(lambda: app(["resume", str(run), "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["nodes"] == {"scored": 1, "valid": 1}
    assert kinds(run)[-5:] == ["opened", "stopped", "finalizing", "final", "closed"]
    (row,), words = stop(run)
    assert row["result"]["valid"] is True


def test_no_wait_returns_at_once_and_one_bad_name_keeps_no_other(held, run, stop):
    """The run is a process of its own, which is the usual case."""
    held.offer("first", "whole", held="first")
    argv = [sys.executable, "-m", "harness", "run", "--task", "held", "--profile", "test"]
    argv += ["--steps", "4", "--sandbox", "process", "--runs-dir", str(run.parent), "--name", "one"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            under_way(run, 1)
            rows, words = stop(run.parent / "nowhere", run, "--no-wait", code=2)
            assert rows == [{"run": str(run), "result": None}]
            assert "There is no run at" in words
            assert not (run / "result.json").exists()
        finally:
            held.let_go()
        out, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert "Stopped by the user." in said
    assert "accuracy" in out
    assert json.loads((run / "result.json").read_text())["nodes"]["scored"] == 1
