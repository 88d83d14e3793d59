"""A whole run of a task whose architectures are scored by their loss: less is better throughout."""

import json
from pathlib import Path

import pytest
from calling import call
from observing import interrupting, quiet

from harness.base.errors import Cancelled
from harness.core.asked import Asked
from harness.launch.run import resume, start

STEPS = 7


def asked(agent: str) -> Asked:
    return Asked(task="compose/stories", profile="test", agent=agent, seed=3, steps=STEPS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run by each of two agents."""
    folder = tmp_path_factory.mktemp("losses")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_DATA", str(folder / "data"))
        for agent in ("evolution", "local"):
            start(asked(agent), folder / "runs", name=agent, progress=quiet, observe=quiet)
    return folder / "runs"


def losses(run: Path) -> list[float]:
    files = (run / "nodes" / f"{n:04d}" / "score.json" for n in range(STEPS))
    return [json.loads(file.read_text())["score"] for file in files]


def test_the_lowest_loss_is_picked_and_improved_upon(runs):
    for agent in ("evolution", "local"):
        found = losses(runs / agent)
        assert len(set(found)) > 2
        result = json.loads((runs / agent / "result.json").read_text())
        assert found[result["node"]] == min(found)
        assert result["metric"] == "cross_entropy"
        assert result["measures"]["excess"] > 0
    # Local search starts from the best node that has untried neighbours: here the lowest so far.
    state = json.loads(call("show", runs / "local", "--json").stdout)
    for node in state["nodes"][1:]:
        notes = node["note"].split("from node ")
        assert len(notes) == 2
        parent = int(notes[1].split(":")[0])
        assert losses(runs / "local")[parent] == min(losses(runs / "local")[: node["node"]])


def test_all_that_reads_runs_knows_that_less_is_better(runs, tmp_path):
    said = call("show", runs / "evolution").stdout
    assert f"{min(losses(runs / 'evolution')):.4f}  ◀ best" in said
    assert "excess: " in call("show", runs / "evolution", "--node", "0").stdout
    (table,) = call("leaderboard", runs, "--json").json["tables"]
    (task,) = table["tasks"]
    assert (task["metric"], task["direction"]) == ("cross_entropy", "minimize")
    assert "the source's entropy" in call("leaderboard", runs).stdout
    compared = call("compare", "evolution", "local", "--runs", runs).stdout
    assert "cross_entropy (minimize)" in compared
    assert "-0.0000" not in compared
    call("report", runs, "-o", tmp_path / "page.html")
    assert "lower is better" in (tmp_path / "page.html").read_text()


def test_scored_again_it_agrees(runs, tmp_path):
    now = call("rescore", runs / "local", "--node", "2", "--json").json["new"]
    assert now["score"] == pytest.approx(losses(runs / "local")[2], abs=1e-4)
    call("bundle", runs / "local", "-o", tmp_path / "one.tar.zst")
    assert "agrees" in call("verify", tmp_path / "one.tar.zst").stdout


def test_a_run_that_was_interrupted_goes_on(runs, tmp_path):
    with pytest.raises(Cancelled):
        start(
            asked("local"), tmp_path, name="a", progress=quiet, observe=interrupting("scored", "2")
        )
    resume(tmp_path / "a", progress=quiet, observe=quiet)
    assert losses(tmp_path / "a") == pytest.approx(losses(runs / "local"), abs=1e-4)
