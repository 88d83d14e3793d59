"""Runs of architectures: one seed for all nodes, trained together, and no node twice."""

import json
from pathlib import Path

import pytest
from calling import call
from observing import interrupting, quiet

from harness.agents import AGENTS
from harness.base.errors import Cancelled
from harness.core.agent import Answer
from harness.core.asked import Asked
from harness.launch.run import resume, start
from harness.report.usage import describe_spent

LAYERS = ("A M A M", "M M M M", "A A A M", "A M A M", "A,M,A,M", "A A M", "A M A M")
ROUNDING = 0.02
"""How far a score may move with its companions: a token or two of 320 change in rounding."""


class Arranger:
    """Writes the architectures of a list: repeated ones, one written otherwise, one invalid."""

    name = "arranger"
    trusted = True

    def write(self, ask):
        return Answer({"architecture.txt": LAYERS[ask.node] + "\n"})


@pytest.fixture
def arranger(monkeypatch):
    monkeypatch.setitem(AGENTS.ours, Arranger.name, Arranger)


def asked(steps: int = len(LAYERS), slots: int = 1) -> Asked:
    limits = {"steps": steps, "workers": slots}
    return Asked(task="compose/mad", profile="test", agent=Arranger.name, seed=4, **limits)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two runs that submit the same, by one slot and by three."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_DATA", str(folder / "data"))
        patch.setitem(AGENTS.ours, Arranger.name, Arranger)
        for slots in (1, 3):
            seen = []
            observe = lambda *what, seen=seen: seen.append(what)  # noqa: E731
            start(asked(slots=slots), folder, name=f"by-{slots}", progress=quiet, observe=observe)
            # They take turns, so no warning that they slow each other down.
            assert not [details for what, _, details in seen if what == "warning"]
    return folder


def scores(run: Path) -> list[dict]:
    files = (run / "nodes" / f"{n:04d}" / "score.json" for n in range(len(LAYERS)))
    return [json.loads(file.read_text()) for file in files]


def test_all_nodes_share_a_seed_and_the_final_training_has_its_own(runs):
    for run in (runs / "by-1", runs / "by-3"):
        seeds = {score["conditions"]["training_seed"] for score in scores(run)}
        assert len(seeds) == 1
        final = json.loads((run / "final" / "score.json").read_text())
        assert final["conditions"]["training_seed"] not in seeds
        assert final["conditions"]["split"] == "test"


def test_what_was_submitted_before_is_not_trained_again_but_counts(runs):
    first, _, _, again, otherwise, invalid, last = scores(runs / "by-1")
    assert first["seconds"]["total"] > 0
    for repeated in (again, last):
        assert repeated["score"] == first["score"]
        assert repeated["measures"] == first["measures"]
        assert repeated["seconds"] == {"total": 0.0}
    log = (runs / "by-1" / "nodes" / "0006" / "stdout.log").read_text()
    assert log == "The same as node 0, whose score it takes over.\n"
    # Another text is another submission, but the same training.
    assert otherwise["score"] == first["score"]
    assert otherwise["seconds"]["total"] > 0
    assert invalid["reason"] == "interface_error"
    result = json.loads((runs / "by-1" / "result.json").read_text())
    assert result["nodes"] == {"scored": len(LAYERS), "valid": len(LAYERS) - 1}


def test_slots_train_what_waits_together_and_the_scores_stay(runs):
    alone, together = scores(runs / "by-1"), scores(runs / "by-3")
    assert all(score["companions"] == [] for score in alone)
    assert [score["valid"] for score in alone] == [score["valid"] for score in together]
    for one, other in zip(alone, together, strict=True):
        if one["valid"]:
            assert one["score"] == pytest.approx(other["score"], abs=ROUNDING)


def test_such_runs_are_read_as_all_others(runs):
    shown = call("show", runs / "by-3", "--node", "0").stdout
    assert "sandbox: none: no code of a submission runs" in shown
    assert "memorization: 0." in shown
    board = call("leaderboard", runs).stdout
    assert "the commonest token so far" in board
    assert "chance.memorization" not in board
    (table,) = call("leaderboard", runs, "--json").json["tables"]
    assert table["conditions"]["isolation"] == "isolated"
    page = runs / "page.html"
    call("report", runs, "-o", page)
    assert "No code was submitted" in page.read_text()
    assert "in a fresh sandbox" not in page.read_text()
    call("bundle", runs / "by-1", "-o", runs / "one.tar.zst")
    assert "agrees" in call("verify", runs / "one.tar.zst").stdout


def test_without_a_gpu_nodes_wait_for_their_turn(runs):
    spent = json.loads((runs / "by-3" / "result.json").read_text())["spent"]
    assert "waited for their turn: 7s, all nodes together" in describe_spent(
        {**spent, "queued_s": 7.0}
    )


def test_a_rescore_agrees(runs):
    now = call("rescore", runs / "by-1", "--node", "2", "--json").json["new"]
    then = scores(runs / "by-1")[2]
    assert now["score"] == pytest.approx(then["score"], abs=ROUNDING)


def test_a_run_that_was_interrupted_goes_on_and_repeats_nothing(runs, arranger, tmp_path):
    with pytest.raises(Cancelled):
        start(asked(), tmp_path, name="a", progress=quiet, observe=interrupting("scored", "2"))
    seen = []
    resume(
        tmp_path / "a", progress=quiet, observe=lambda what, label, _: seen.append((what, label))
    )
    assert scores(tmp_path / "a")[6]["seconds"] == {"total": 0.0}
    assert [label for what, label in seen if what == "evaluating"] == ["4", "5"]
    before = [score["score"] for score in scores(runs / "by-1")]
    assert [score["score"] for score in scores(tmp_path / "a")] == pytest.approx(
        before, abs=ROUNDING
    )


@pytest.mark.slow
def test_a_search_of_seconds_beats_mlps_alone_by_far(tmp_path):
    what = ("--task", "compose/mad", "--profile", "smoke", "--runs-dir", tmp_path, "--json")
    found = call("run", *what, "--agent", "evolution", "--steps", 8).json
    (tmp_path / "architecture.txt").write_text("MMMMMM")
    floor = call("score", tmp_path / "architecture.txt", *what, "--split", "test").json
    assert found["score"] > floor["score"] + 0.1
    assert set(found["measures"]) >= {"memorization", "selective_copying", "macro"}
