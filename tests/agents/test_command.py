"""``harness agents``: the table, and what it must not show."""

import subprocess
import sys
from datetime import date

import pytest
from calling import call


@pytest.fixture
def run(monkeypatch):
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "VLLM_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("harness.cli.agents.today", lambda: date(2026, 10, 23))
    return lambda *args, code=0: call("agents", *args, code=code)


def test_the_table_shows_models_prices_keys_and_retirements(run, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret-value")
    result = run()
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert "5/0.5/25" in lines["opus-4.5"]
    assert " set " in lines["opus-4.5"]
    assert "missing" in lines["gpt-4o"]
    assert "shut 2026-10-23" in lines["o3-mini"]
    assert "shuts 2026-12-11" in lines["gpt-5"]
    assert "unknown" in lines["gpt-oss-20b"]
    assert "agents.toml" in result.stdout
    assert "sk-ant" not in result.stdout


def test_json_has_no_zero_for_what_is_unknown(run):
    rows = {r["agent"]: r for r in run("--json").json["agents"]}
    assert rows["cwm"]["dollars_per_million"] is None
    assert rows["gpt-4o"]["dollars_per_million"][0]["cache_write"] is None
    assert rows["gemini-3.1-pro"]["dollars_per_million"][1]["above_prompt_tokens"] == 200_000
    assert (rows["o3-mini"]["shut"], rows["gpt-5"]["shut"]) == (True, False)
    assert rows["opus-4.5"]["key"] == "ANTHROPIC_API_KEY"
    assert rows["opus-4.5"]["key_present"] is False


def test_a_table_of_ones_own_is_shown_and_named(run, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("format = 1\n[agents.gpt-oss-20b]\nprices = [{ input = 0.5, output = 1 }]\n")
    result = run("--agents-file", file)
    assert "0.5/?/1" in result.stdout
    assert "mine.toml" in result.stdout.replace("\n", "")
    run("--agents-file", tmp_path / "none.toml", code=2)


def test_listing_imports_no_sdk():
    code = (
        "import sys; from harness.cli.app import app\n"
        "import contextlib\n"
        "with contextlib.suppress(SystemExit): app(['agents'])\n"
        "print(sorted({'anthropic', 'openai', 'httpx2', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
