"""Exports for other tools (Parquet, Inspect): every node, with its texts, cost and score."""

import json
import shutil

import pytest
from calling import call

from harness.report.export.inspect_log import as_inspect, log_of
from harness.report.export.rows import COLUMNS, as_parquet
from report.made import HOSTILE, made_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("made"), nodes=9, words=HOSTILE, name="run")


def test_parquet_has_a_row_a_node(run, tmp_path):
    import pyarrow.parquet as pq

    other = made_run(tmp_path, nodes=6, seed=2, calls=False, name="other")
    broken = made_run(tmp_path, nodes=6, seed=3, name="broken")
    (broken / "nodes/0001/train.py").write_text("other")
    count, skipped = as_parquet([run, broken, other], tmp_path / "n.parquet")
    assert count == 15
    assert list(skipped) == [str(broken)]
    table = pq.read_table(tmp_path / "n.parquet")
    assert table.column_names == list(COLUMNS)
    rows = table.to_pylist()
    assert [r["node"] for r in rows] == [*range(9), *range(6)]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    scored = {e["node"]: e["score"] for e in events if e["event"] == "scored"}
    for row in rows[:9]:
        folder = run / f"nodes/{row['node']:04d}"
        assert row["score"] == scored[row["node"]]
        assert row["source"] == (folder / "train.py").read_text()
        assert row["calls"] == 1
        assert row["dollars"] == 0.02
        assert row["input_tokens"] > 1000
        assert "I will" in row["answer"]
        assert "\x1b" not in row["log"]
    assert [r["calls"] for r in rows[9:]] == [0] * 6
    result = json.loads((run / "result.json").read_text())
    assert [r["node"] for r in rows[:9] if r["final_node"]] == [result["node"]]
    assert rows[0]["final_score"] == result["score"]
    assert rows[0]["maximize"] is False


def test_an_inspect_log_holds_conversation_score_and_usage(run):
    """Its fields are those of inspect_ai 0.3.285, whose read_eval_log reads the file."""
    log = log_of(run)
    assert (log["version"], log["status"]) == (2, "success")
    assert log["eval"]["dataset"]["sample_ids"] == list(range(9))
    (score,) = log["results"]["scores"]
    result = json.loads((run / "result.json").read_text())
    assert score["metrics"]["bits_per_byte"]["value"] == result["score"]
    sample = log["samples"][7]
    assert [m["role"] for m in sample["messages"]] == ["system", "user", "assistant"]
    answer = (run / "nodes/0007/completion.md").read_text()
    assert sample["output"]["choices"][0]["message"]["content"] == answer
    assert sample["scores"]["harness"]["answer"] == (run / "nodes/0007/train.py").read_text()
    one = sample["model_usage"]["made"]
    assert one["total_tokens"] == one["input_tokens"] + one["output_tokens"] > 0
    total = log["stats"]["model_usage"]["made"]["total_tokens"]
    assert total == sum(s["model_usage"]["made"]["total_tokens"] for s in log["samples"])
    invalid = [s for s in log["samples"] if not s["scores"]["harness"]["metadata"]["valid"]]
    assert invalid
    assert {s["scores"]["harness"]["value"] for s in invalid} == {"I"}


@pytest.mark.slow
def test_inspects_own_reader_reads_it(run, tmp_path):
    from inspect_ai.log import read_eval_log  # here: it takes seconds, and only this test needs it

    (file,), _ = as_inspect([run], tmp_path)
    log = read_eval_log(str(file))
    assert [sample.id for sample in log.samples] == list(range(9))
    result = json.loads((run / "result.json").read_text())
    assert log.results.scores[0].metrics["bits_per_byte"].value == result["score"]
    answer = (run / "nodes/0003/completion.md").read_text()
    assert log.samples[3].output.completion == answer
    assert log.samples[3].model_usage["made"].input_tokens > 0


def test_the_command_writes_both_and_names_what_it_skipped(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "runs" / "run")
    (run.parent / "foreign").mkdir()
    out = tmp_path / "logs"
    said = call("export", run.parent, "--to", "inspect", "-o", out, "--json").json
    assert [str(p) for p in out.iterdir()] == said["files"]
    assert said["skipped"] == {str(run.parent / "foreign"): "no run directory"}
    table = tmp_path / "n.parquet"
    assert "9 nodes of 1 runs" in call("export", run, "--to", "parquet", "-o", table).stdout
    call("export", run.parent / "foreign", code=2)
