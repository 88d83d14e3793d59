"""Tests of requests, from a file or from options, and of scores by hand, outside any run."""

import json
import os
import shutil
import signal
import tomllib
from pathlib import Path

import pytest
from calling import call
from toy_task import TOY, copy_toy

from harness.base.errors import InfrastructureError
from harness.cli import run as run_command
from harness.core.asked import Asked
from harness.search import local
from harness.store.reading import read_as
from harness.store.rundir import Run, write_asked
from harness.sweeps import plan
from sandboxes import registry
from tasks.spec import find_task


@pytest.fixture
def breaks(judged, monkeypatch):
    """Make the judge raise InfrastructureError ``breaks[0]`` times before it judges."""
    times, judge = [0], local.judge
    monkeypatch.setattr(local, "BACK_OFF_S", 0.0)

    def breaks(evaluation, request):
        if times[0]:
            times[0] -= 1
            raise InfrastructureError("The sandbox is lost.")
        return judge(evaluation, request)

    monkeypatch.setattr(local, "judge", breaks)
    return times


@pytest.fixture
def asked(judged, monkeypatch):
    """What the judge was asked so far, in order."""
    requests, judge = [], local.judge

    def noting(evaluation, request):
        requests.append(request)
        return judge(evaluation, request)

    monkeypatch.setattr(local, "judge", noting)
    return requests


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine").mkdir()
    text = find_task("toy").render({"known": 3, "style": "plain"})["model.py"]
    (tmp_path / "mine" / "model.py").write_text(text)
    return tmp_path


def test_what_run_toml_asked_is_asked_again_and_what_is_typed_beside_it_goes_before(
    finished, tmp_path, judged
):
    here, result = finished
    file = here / result["run"] / "run.toml"
    first = read_as(Asked, file)
    told = call("run", "--asked", file, "--seed", 7, "--set", "greedy.num_drafts=2",
                "--effort", "high", "--json", cwd=tmp_path, code=2)  # fmt: skip
    assert "--effort means nothing to agent reference" in told.stderr
    done = call("run", "--asked", file, "--seed", 7, "--set", "greedy.num_drafts=2", "--json",
                cwd=tmp_path)  # fmt: skip
    again = Run.open(tmp_path / done.json["run"]).asked
    assert again == first.model_copy(update={"seed": 7, "settings": ("greedy.num_drafts=2",)})


def test_a_request_with_the_defaults_typed_is_the_one_with_them_left_out(tmp_path, judged):
    write_asked(tmp_path / "few.toml", Asked(task="toy", profile="test", steps=1))
    runs = [
        call("run", "--asked", "few.toml", "--name", "file", "--json", cwd=tmp_path),
        call("run", *TOY, "--steps", 1, "--name", "typed", "--json", cwd=tmp_path),
    ]
    one, other = (Run.open(tmp_path / done.json["run"]).asked for done in runs)
    assert one == other
    (tmp_path / "least.toml").write_text('format = 1\ntask = "toy"\nprofile = "test"\n')
    assert read_as(Asked, tmp_path / "least.toml") == Asked(task="toy", profile="test")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('format = 1\ntask = "toy"\nsead = 1\n', "did you mean 'seed'"),
        ('format = 1\ntask = "toy"\nsteps = -1\n', "steps is -1"),
        ('format = 2\ntask = "toy"\n', "format 2"),
        ('task = "toy"\n', "names no format"),
        ("task = \n", "cannot be read"),
    ],
)
def test_a_bad_request_is_refused_and_what_is_wrong_is_named(tmp_path, text, said):
    (tmp_path / "bad.toml").write_text(text)
    done = call("run", "--asked", "bad.toml", cwd=tmp_path, code=2)
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()
    assert "--task" in call("run", cwd=tmp_path, code=2).stderr


def test_a_folder_that_a_request_names_is_relative_to_its_file(tmp_path):
    (tmp_path / "there").mkdir()
    asked = 'format = 1\ntask = "autoresearch"\nprofile = "test"\n'
    (tmp_path / "there" / "data.toml").write_text(f'{asked}[data]\nsource = "mine"\n')
    done = call("run", "--asked", "there/data.toml", cwd=tmp_path, code=2)
    assert f"no folder {tmp_path / 'there' / 'mine'}" in done.stderr
    asked += 'agent = "opus-4.6"\n[writing]\nbase_url = "http://127.0.0.1:9"\nprompts = "mine"\n'
    (tmp_path / "there" / "prompts.toml").write_text(asked)
    done = call("run", "--asked", "there/prompts.toml", cwd=tmp_path, code=2)
    assert f"{tmp_path / 'there' / 'mine'}" in done.stderr


def test_a_score_by_hand_is_kept_with_all_that_made_it(mine, judged):
    told = ("score", "mine", *TOY, "--seed", 5, "--repeat", 2, "--json")
    result = call(*told, cwd=mine).json
    assert len(result["kept"]) == 2
    for seed, folder in zip((5, 6), result["kept"], strict=True):
        place = mine / folder
        assert place.parent == mine / "runs" / "scores"
        asked = tomllib.loads((place / "asked.toml").read_text())
        assert (asked["task"], asked["profile"], asked["seed"]) == ("toy", "test", seed)
        assert (place / "model.py").read_text() == (mine / "mine" / "model.py").read_text()
        score = json.loads((place / "score.json").read_text())
        assert score["score"] == pytest.approx(0.75 - seed % 8 / 100)
    assert call("ls", "--json", cwd=mine).json["runs"] == []
    assert call("leaderboard", "runs", "--json", cwd=mine).json["skipped"] == {}
    told = call("run", *TOY, "--name", "scores", cwd=mine, code=2).stderr
    assert "No run can be called scores" in told
    text = call("score", "mine/model.py", *TOY, cwd=mine).stdout
    assert "kept: runs/scores/" in text
    assert "_mine_0" in text


def test_a_log_is_kept_where_it_is_wanted_too(mine):
    design = mine / "mine" / "model.py"
    design.write_text('print("MARK", flush=True)\n' + design.read_text())
    result = call("score", design, *TOY, "--log", "said.txt", "--json", cwd=mine).json
    (kept,) = result["kept"]
    assert "MARK" in (mine / "said.txt").read_text()
    assert (mine / kept / "stdout.log").read_bytes() == (mine / "said.txt").read_bytes()


def test_where_our_side_breaks_a_score_by_hand_is_tried_again_as_a_run_would(mine, breaks):
    breaks[0] = 2
    done = call("score", "mine", *TOY, "--json", cwd=mine)
    assert done.json["score"] == pytest.approx(0.75)
    assert done.stderr.count("our side broke, trying again: The sandbox is lost.") == 2
    breaks[0] = 9
    call("score", "mine", *TOY, cwd=mine, code=3)
    assert len(list((mine / "runs" / "scores").iterdir())) == 1, "no score, no record"


def test_a_rescore_is_tried_again_too(copied, breaks):
    here, result = copied
    breaks[0] = 1
    done = call("rescore", result["run"], "--json", cwd=here)
    assert "our side broke, trying again" in done.stderr
    assert done.json["new"]["valid"]


def test_what_a_run_recorded_does_not_decide_that_its_code_runs_without_isolation(
    tmp_path, asked, monkeypatch
):
    told = ("run", *TOY, "--steps", 1, "--sandbox", "process", "--json")
    run = call(*told, cwd=tmp_path).json["run"]
    call("rescore", run, cwd=tmp_path)
    call("rescore", run, "--sandbox", "process", cwd=tmp_path)
    *_, first, second = (request.backend.name for request in asked)
    assert (registry.isolates(first), second) == (True, "process")
    monkeypatch.setattr(registry.BACKENDS, "ours", {"process": registry.BACKENDS.ours["process"]})
    refused = call("rescore", run, cwd=tmp_path, code=2).stderr
    assert "this code did not ship with the harness" in refused
    assert "--sandbox process, if you trust the code" in refused


def test_strict_reaches_the_judge_of_a_task_that_has_such_a_check(mine, asked):
    entry = 'entry = "runner.py"'
    copy_toy(
        mine / "tasks" / "strictly",
        ('name = "toy"', 'name = "strictly"'),
        (entry, f"{entry}\nfrozen_{entry}"),
    )
    told = ("score", "mine", "--task", "strictly", "--profile", "test", "--tasks-dir", "tasks")
    for more in ((), ("--strict",)):
        call(*told, *more, cwd=mine)
    assert [request.strict for request in asked] == [False, True]


def test_without_walls_ones_own_file_is_trained_and_what_a_stranger_sent_is_not(
    finished, mine, judged, monkeypatch
):
    here, result = finished
    call("bundle", here / result["run"], "-o", "b.tar.gz", cwd=mine)
    monkeypatch.setattr(registry.BACKENDS, "ours", {"process": registry.BACKENDS.ours["process"]})
    done = call("score", "mine", *TOY, cwd=mine)
    assert "warning: sandbox 'process': no isolation" in done.stderr
    done = call("verify", "b.tar.gz", cwd=mine, code=2)
    assert "this code did not ship with the harness" in done.stderr


def test_the_list_of_runs_checks_the_journal_of_one_that_has_ended(finished, tmp_path):
    here, result = finished
    run = Path(shutil.copytree(here / result["run"], tmp_path / "runs" / "a"))
    listed = call("ls", "--json", cwd=tmp_path).json["runs"]
    assert [row["status"] for row in listed] == ["finished"]
    journal = run / "events.jsonl"
    journal.write_text(journal.read_text().replace('"event": "chosen"', '"event": "chasen"', 1))
    (row,) = call("ls", "--json", cwd=tmp_path).json["runs"]
    assert row["status"] == "damaged"
    assert "events.jsonl, line 2 is damaged" in row["problem"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_a_score_from_outside_ends_its_evaluation_first(mine, monkeypatch, sent):
    ended = []

    def judge(evaluation, request):
        os.kill(os.getpid(), sent)
        ended.append(evaluation.stopped.wait(60))
        raise InfrastructureError("cancelled")

    monkeypatch.setattr(local, "judge", judge)
    call("score", "mine", *TOY, cwd=mine, code=130)
    assert ended == [True]
    assert list((mine / "runs" / "scores").iterdir()) == []


def test_that_a_score_cannot_be_kept_is_said_before_the_training(mine, judged):
    judged.first = lambda node: pytest.fail("it was trained")
    (mine / "runs").write_text("a file")
    done = call("score", "mine", *TOY, cwd=mine, code=2)
    assert "runs cannot hold scores" in done.stderr
    assert "--runs-dir" in done.stderr


def test_every_field_of_a_request_can_be_typed():
    names = {"asked", "tasks_dir", "runs_dir", "name", "json", "context"}
    typed = set(run_command.command.__wrapped__.__annotations__) - names - {"return", "byte_counts"}
    fields = set(Asked.model_fields) - {"format", "writing"}
    fields |= set(Asked.model_fields["writing"].default_factory.model_fields)
    assert {run_command.OPTIONS.get(field, field) for field in fields} == typed


@pytest.mark.parametrize(("gpus", "at_once"), [(0, 1), (1, 2), (4, 8)])
def test_a_sweep_makes_two_runs_a_gpu_at_once(tmp_path, monkeypatch, gpus, at_once):
    monkeypatch.setattr(plan, "gpus_here", lambda: gpus)
    group = '[[groups]]\nagents = ["reference"]\ntasks = ["toy"]\nprofile = "test"\n'
    (tmp_path / "s.toml").write_text(f'format = 1\nname = "s"\n{group}')
    told = call("sweep", "s.toml", "--dry-run", "--json", cwd=tmp_path).json
    assert told["concurrent"] == at_once
    asked = ("sweep", "s.toml", "--dry-run", "--json", "--concurrent", 3)
    assert call(*asked, cwd=tmp_path).json["concurrent"] == 3
