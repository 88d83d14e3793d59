"""Tests of the Autoresearch task from the command line: real text, training and judge."""

import json
import math
from pathlib import Path

import pytest
from calling import call

DESIGNS = Path(__file__).parents[2] / "tasks" / "autoresearch" / "designs"


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_run_ends_with_bits_per_byte_on_the_test_split_and_its_resolution(tmp_path):
    told = ("--profile", "test", "--agent", "reference", "--policy", "greedy", "--steps", 1)
    result = call("run", "--task", "autoresearch", *told, "--json", cwd=tmp_path).json
    assert result["metric"] == "bits_per_byte"
    assert result["valid"] is True
    assert 0.5 < result["score"] < 8
    assert 0 < result["resolution"] < 2
    assert {a["name"] for a in result["audits"]} >= {"prefix", "swap", "statelessness", "trend"}
    # On the test split only the judge knows the number: the script gets none and claims none.
    assert result["claim"]["val_bpb"] == "nan"
    node = json.loads((tmp_path / result["run"] / "nodes/0000/score.json").read_text())
    assert result["search_score"] == node["score"]
    # On the search split the script gets the number, and its own summary line repeats it.
    assert math.isclose(float(node["claim"]["val_bpb"]), node["score"], abs_tol=1e-5)
    (table,) = call("leaderboard", "--json", cwd=tmp_path).json["tables"]
    (board,) = table["tasks"]
    assert board["direction"] == "minimize"
    assert set(board["baselines"]) == {"unigram", "ngram"}
    shown = call("show", result["run"], "--node", "0", cwd=tmp_path).stdout
    assert "audit resolution" in shown


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_byte_counts_of_the_public_task_make_another_score_of_other_data(tmp_path):
    told = ("--task", "autoresearch", "--profile", "test", "--json")
    exact, public = (
        call("score", DESIGNS / "ngram.py", *told, *more, cwd=tmp_path).json
        for more in ((), ("--byte-counts", "public"))
    )
    assert public["score"] < exact["score"]  # "public": a piece of a character is 3 bytes
    assert public["conditions"]["data_hash"] != exact["conditions"]["data_hash"]


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_scores_repeat_and_stand_beside_the_baseline(tmp_path):
    script = DESIGNS / "ngram.py"
    told = ("--task", "autoresearch", "--profile", "test", "--repeat", 2, "--baseline", "--json")
    result = call("score", script, *told, cwd=tmp_path).json
    assert result["repeats"]["n"] == result["repeats"]["valid"] == 2
    assert result["repeats"]["scores"][0] == result["score"]
    assert result["repeats"]["stdev"] < 0.01  # the script counts n-grams: the seed changes nothing
    assert result["baseline"]["design"] == "baseline"
    assert result["baseline"]["mean"] > result["repeats"]["mean"] + 0.5


def test_a_folder_of_ones_own_text_is_another_data_set(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.txt").write_text("too little")
    command = ("prepare", "autoresearch", "--profile", "test", "--data")
    done = call(*command, folder, cwd=tmp_path, code=2)
    assert "tokens" in done.stderr
    done = call(*command, tmp_path / "absent", cwd=tmp_path, code=2)
    assert "absent" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.nightly
@pytest.mark.parametrize("count", ["exact", "public"])
def test_prepare_says_what_is_in_the_data(tmp_path, count):
    told = ("--profile", "test", "--byte-counts", count, "--json")
    made = call("prepare", "autoresearch", *told, cwd=tmp_path).json
    manifest = made["manifest"]
    assert manifest["parameters"]["byte_counts"] == count
    assert 0 < manifest["parameters"]["overlap_test"] < 0.2
    assert manifest["baselines"]["ngram_test"] < manifest["baselines"]["unigram_test"]
    assert Path(made["path"]).is_dir()


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_strict_score_is_of_the_exported_model_or_says_why_not(tmp_path):
    told = ("--task", "autoresearch", "--profile", "test", "--strict", "--json")
    held = call("score", DESIGNS / "baseline.py", *told, cwd=tmp_path).json
    assert held["strict"].startswith("held")
    assert {a["name"] for a in held["audits"]} >= {"swap", "frozen twins", "frozen repeats"}
    assert held["resolution"] < 0.05
    assert "frozen" not in held["claim"]
    counted = call("score", DESIGNS / "ngram.py", *told, cwd=tmp_path).json
    assert counted["valid"] is True
    assert counted["strict"].startswith("unavailable: ")
