"""Tests of commands as users call them: results on stdout, messages on stderr, exit codes."""

import json
import tempfile
from pathlib import Path

import pytest
from calling import call, start
from toy_task import TOY

from harness.report import diagnosis
from tasks.spec import find_task

TOP = {
    "format", "run", "task", "profile", "agent", "policy", "seed", "valid", "metric", "score",
    "search_score", "reason", "audits", "conditions", "seconds",
}  # fmt: skip
"""Keys of ``run --json`` and ``score --json`` that scripts rely on."""


def test_run_ends_with_one_json_object_that_scripts_can_rely_on(finished):
    _, result = finished
    assert set(result) >= TOP
    assert (result["valid"], result["score"], result["search_score"]) == (True, 1.0, 1.0)
    assert result["reason"] is None
    assert result["conditions"]["split"] == "test"
    assert result["nodes"] == {"scored": 4, "valid": 3}


def test_run_says_a_plain_line_a_node_where_there_is_no_terminal(tmp_path):
    done = start("run", *TOY, "--steps", "1", cwd=tmp_path)
    assert "node 0  draft" in done.stderr
    assert "best so far" in done.stderr
    assert "on the hidden test split" in done.stdout
    assert "harness show runs/" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_a_run_without_a_valid_node_exits_1_and_says_so(tmp_path, changed_toy):
    designs = ('["half", "constant", "whole", "broken"]', '["broken"]')
    changed_toy(('name = "toy"', 'name = "broken-toy"'), designs)
    argv = ("run", "--task", "broken-toy", "--profile", "test", "--steps", 1, "--json")
    done = call(*argv, cwd=tmp_path, code=1)
    result = done.json
    assert (result["valid"], result["score"], result["reason"]) == (False, None, "no_valid_node")
    assert "broken on purpose" in done.stderr
    (table,) = call("leaderboard", "runs", "--json", cwd=tmp_path).json["tables"]
    assert (table["rows"][0]["valid"], table["rows"][0]["planned"]) == (0, 1)


def test_score_by_hand_agrees_with_the_run_and_names_each_audit(tmp_path):
    call("new", "--task", "toy", "mine", "--profile", "test", cwd=tmp_path)
    assert "Training lasts 20 steps" in (tmp_path / "mine" / "TASK.md").read_text()
    score = call("score", "mine", *TOY, "--json", cwd=tmp_path).json
    assert set(score) >= TOP
    assert score["search_score"] == score["score"]
    text = call("score", "mine/model.py", *TOY, cwd=tmp_path)
    assert "statelessness: passed" in text.stdout
    assert f"accuracy {score['score']:.4f}" in text.stdout


def test_score_of_a_broken_file_exits_1_with_the_reason_and_the_authors_line(tmp_path):
    (tmp_path / "model.py").write_text("def predict(tokens)\n    pass\n")
    done = call("score", "model.py", *TOY, cwd=tmp_path, code=1)
    assert "syntax_error" in done.stdout
    assert "line 1" in done.stdout


def test_repeats_have_seeds_of_their_own_and_the_baseline_has_the_same(tmp_path, judged):
    (tmp_path / "model.py").write_text(
        find_task("toy").render({"known": 3, "style": "plain"})["model.py"]
    )
    told = ("score", "model.py", *TOY, "--seed", 5, "--repeat", 3)
    result = call(*told, "--baseline", "--json", cwd=tmp_path).json
    assert result["repeats"]["scores"] == pytest.approx([0.70, 0.69, 0.68])
    assert result["repeats"]["mean"] == pytest.approx(0.69)
    assert result["repeats"]["stdev"] == pytest.approx(0.01)
    assert result["baseline"]["design"] == "half"
    assert result["baseline"]["scores"] == pytest.approx([0.45, 0.44, 0.43])
    text = call(*told, "--baseline", cwd=tmp_path).stdout
    assert "0.6900" in text
    assert "0.4400" in text
    assert "no strict check" in call(*told, "--strict", cwd=tmp_path, code=2).stderr


def test_show_draws_the_tree_and_one_node(finished):
    here, result = finished
    tree = call("show", result["run"], cwd=here).stdout
    assert "2 draft" in tree
    assert "◀ best" in tree
    assert "invalid: runtime_error" in tree
    node = call("show", result["run"], "--node", "2", cwd=here).stdout
    assert "Reads the first token" in node
    assert "statelessness: passed" in node
    shown = call("show", result["run"], "--node", "3", "--json", cwd=here).json
    assert shown["score_record"]["reason"] == "runtime_error"


def test_ls_and_leaderboard_list_the_run(finished):
    here, result = finished
    (row,) = call("ls", "--json", cwd=here).json["runs"]
    assert (row["status"], row["score"], row["valid_nodes"]) == ("finished", 1.0, 3)
    assert "finished" in call("ls", cwd=here).stdout
    board = call("leaderboard", "runs", cwd=here).stdout
    assert "1 of 1" in board
    assert "reference" in board
    assert call("leaderboard", Path(result["run"]).name, cwd=here).stdout == board


def test_resuming_a_finished_run_gives_its_result_and_changes_nothing(finished):
    here, result = finished
    before = (Path(here) / result["run"] / "events.jsonl").read_bytes()
    done = call("resume", result["run"], "--json", cwd=here)
    assert done.json == result
    assert (Path(here) / result["run"] / "events.jsonl").read_bytes() == before


def test_rescore_stands_beside_the_old_score(copied):
    here, result = copied
    before = (here / result["run"] / "final" / "score.json").read_bytes()
    done = call("rescore", result["run"], "--json", cwd=here).json
    assert done["new"]["score"] == done["old"]["score"] == 1.0
    assert done["same_conditions"] is True
    assert (here / result["run"] / "final" / "score.json").read_bytes() == before
    assert (here / done["file"]).exists()


@pytest.mark.parametrize("agent", ["random", "tpe", "local", "gp"])
def test_baselines_repeat_exactly_and_resume_to_the_same_knobs(tmp_path, agent, judged):
    args = ("run", *TOY, "--agent", agent, "--steps", 7, "--seed", 3, "--name")

    def interrupt(node):
        if node == "6":
            raise KeyboardInterrupt

    call(*args, "once", cwd=tmp_path)
    call(*args, "again", cwd=tmp_path)
    judged.first = interrupt
    call(*args, "resumed", cwd=tmp_path, code=130)
    judged.first = lambda node: None
    call("resume", "resumed", cwd=tmp_path)
    trees = [
        call("show", f"runs/{name}", "--json", cwd=tmp_path).json["nodes"]
        for name in ("once", "again", "resumed")
    ]
    once, again, resumed = ([(n["knobs"], n["score"]) for n in tree] for tree in trees)
    assert once == again == resumed
    assert len(once) == 7
    assert len({json.dumps(knobs) for knobs, _ in once}) > 1


BAD = {
    "unknown task": (("run", "--task", "toi"), "'toy'"),
    "unknown task of the real ones": (("run", "--task", "lra/listop"), "'lra/listops'"),
    "unknown agent": (("run", "--task", "toy", "--agent", "referense"), "'reference'"),
    "unknown policy": (("run", "--task", "toy", "--policy", "greedi"), "'greedy'"),
    "unknown profile": (("run", "--task", "toy", "--profile", "tset"), "'test'"),
    "unknown parameter": (("run", *TOY, "--set", "greedy.drafts=1"), "num_drafts"),
    "bad duration": (("run", *TOY, "--time", "soon"), "24h"),
    "unwritable runs": (("run", *TOY, "--runs-dir", "/dev/null/x"), "--runs-dir"),
    "unknown option": (("run", "--taks", "toy"), "--task"),
    "missing submission": (("score", "no.py", *TOY), "harness new"),
    "binary submission": (("score", "binary.py", *TOY), "utf-8"),
    "no such run": (("show", "runs/none"), "harness ls"),
    "not a run": (("show", "."), "run.toml"),
    "no such folder": (("leaderboard", "nowhere"), "nowhere"),
    "sandbox without its engine": (("run", *TOY, "--sandbox", "docker"), "try:   start Docker"),
    "bad size": (("gc", "--runs-beyond", "much"), "10GB"),
    "new into a full folder": (("new", *TOY, "full"), "another name"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_exits_2_with_one_clear_sentence_and_a_remedy(tmp_path, name, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    args, words = BAD[name]
    done = (start if name == "unknown task" else call)(*args, cwd=tmp_path, code=2)
    assert words in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep me"


@pytest.mark.parametrize("what", ["journal", "newer", "submission", "toml", "lock"])
def test_a_damaged_or_newer_run_is_refused_and_nothing_in_it_is_overwritten(copied, what):
    here, result = copied
    run = here / result["run"]
    (run / "result.json").unlink()
    if what == "journal":
        lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
        lines[3] = lines[3].replace("0", "1")
        (run / "events.jsonl").write_text("".join(lines))
    elif what == "newer":
        text = (run / "run.toml").read_text()
        (run / "run.toml").write_text(text.replace("format = 1", "format = 9"))
    elif what == "submission":
        (run / "nodes" / "0001" / "model.py").write_text("changed = True\n")
    elif what == "toml":
        (run / "run.toml").write_text("format = 1\ntask = ")
    else:
        (run / "lock.json").unlink()
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}
    done = call("resume", run, cwd=here, code=2)
    assert "\nerror: " in "\n" + done.stderr
    assert {p: p.read_bytes() for p in before} == before
    listed = call("ls", "--json", cwd=here).json["runs"]
    assert len(listed) == 1


def test_a_run_that_another_process_holds_is_not_touched(copied):
    from filelock import FileLock

    here, result = copied
    (here / result["run"] / "result.json").unlink()
    with FileLock(here / result["run"] / ".lock"):
        done = call("resume", result["run"], cwd=here, code=2)
        (row,) = call("ls", "--json", cwd=here).json["runs"]
    assert "Another process" in done.stderr
    assert row["status"] == "running"


def test_a_task_changed_since_the_run_began_is_not_mixed_into_it(copied, changed_toy):
    here, result = copied
    (here / result["run"] / "result.json").unlink()
    changed_toy(("steps = 20", "steps = 21"))
    done = call("resume", result["run"], cwd=here, code=2)
    assert "task_hash" in done.stderr


def test_without_isolation_a_score_is_marked_and_stands_in_a_table_of_its_own(copied):
    here, _ = copied
    argv = ("run", *TOY, "--steps", 1, "--sandbox", "process")
    done = call(*argv, cwd=here)
    assert "warning" in done.stderr
    assert "NOT ISOLATED" in done.stdout
    board = call("leaderboard", "runs", "--json", cwd=here).json
    assert {t["conditions"]["isolation"] for t in board["tables"]} == {"isolated", "NOT ISOLATED"}


def test_gc_deletes_the_oldest_runs_beyond_a_size_only_when_told(copied, monkeypatch):
    here, _ = copied
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    assert len(list((here / "runs").iterdir())) == 1
    call("gc", cwd=here)
    assert len(list((here / "runs").iterdir())) == 1
    done = call("gc", "--runs-beyond", "1KB", "--yes", "--json", cwd=here)
    assert len(done.json["removed"]) >= 1
    assert list((here / "runs").iterdir()) == []


def test_doctor_has_a_remedy_for_every_lack(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis, "PACKAGES", ("numpy",))  # torch takes long in a sandbox
    done = call("doctor", "--json", cwd=tmp_path, code=None)
    findings = done.json["findings"]
    assert {"python", "torch", "sandbox bubblewrap", "gpu", "data"} <= {f["what"] for f in findings}
    assert all(f["good"] or f["remedy"] for f in findings)
    assert done.returncode == (2 if any(f["blocks"] for f in findings) else 0)
