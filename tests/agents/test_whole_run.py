"""Whole runs of ``harness run`` with a model behind real HTTP: both protocols, real SDKs."""

import json
import os
import shutil
from datetime import date
from functools import partial
from pathlib import Path

import calling
import pytest
from toy_task import TOY

from agents.local_llm import MISSING, serving, weights
from agents.provider_server import agents_file, answer, recorded, status
from agents.proxy_server import no_proxy
from harness.core.model import Prompt, Turn

__all__ = ["no_proxy"]

SMALL = Path(__file__).with_name("small_prompts")
RECORDED = Path(__file__).with_name("recorded_run")
SECRET = "Zk9-this-key-must-be-nowhere"
MODEL = """I look at the first token only.

```python model.py
import numpy as np


def predict(tokens):
    return np.eye(4, dtype=np.float32)[tokens[:, 0] - 1]
```
"""


def entry(protocol: str, url: str, **more) -> dict:
    return {
        "title": "A model for tests", "provider": protocol, "model": "the-model", "base_url": url,
        "context_tokens": 100_000, "max_output_tokens": 4_000, "answer_tokens": 4_000, **more,
    }  # fmt: skip


@pytest.fixture
def call(tmp_path):
    """A function that runs a harness command in this process, which has imported the SDKs."""
    return partial(calling.call, cwd=tmp_path)


@pytest.fixture
def toy(provider, tmp_path):
    """A function that returns the command to run the toy task with the provider's model.

    The model has prices, so that dollars are counted. Its key is in $TOY_KEY.
    """

    def command(protocol, *args):
        known = entry(protocol, provider.base_url(protocol), key="TOY_KEY")
        file = agents_file(tmp_path / "agents.toml", toy=known)
        prices = "{ input = 3.0, cached = 0.3, cache_write = 3.75, output = 15.0 }"
        file.write_text(file.read_text() + f"prices = [{prices}]\n")
        model = ("--agent", "toy", "--agents-file", file)
        return ("run", *TOY, *model, *args, "--json")

    return command


def test_a_model_writes_a_valid_submission_and_the_key_is_nowhere(
    call, toy, provider, protocol, tmp_path
):
    provider.otherwise = answer(MODEL, input_tokens=1000, cached=500, output_tokens=200)
    command = toy(protocol, "--policy", "one_shot", "--max-dollars", "1")
    if protocol == "openai":  # one protocol in its own process, as a user runs it
        done = calling.start(*command, cwd=tmp_path, TOY_KEY=SECRET)
    else:
        done = call(*command, TOY_KEY=SECRET)
    result = done.json
    assert result["score"] == 1.0
    spent = result["spent"]["model"]
    assert (spent["calls"], spent["cached_tokens"], spent["output_tokens"]) == (1, 500, 200)
    assert spent["dollars_known"] == pytest.approx((1000 * 3 + 500 * 0.3 + 200 * 15) / 1e6)
    asked = [r for r in provider.requests if r.path.endswith(("messages", "completions"))]
    assert len(asked) == 1
    assert SECRET in json.dumps(dict(asked[0].headers)), "the key was not even sent"
    everything = [f for f in (tmp_path / "runs").rglob("*") if f.is_file()]
    assert len(everything) > 10
    assert not [f for f in everything if SECRET.encode() in f.read_bytes()]
    assert SECRET not in done.stdout + done.stderr


def test_a_wrong_key_is_said_before_anything_is_spent(call, toy, provider, protocol, tmp_path):
    provider.models = status(401)
    done = call(*toy(protocol, "--policy", "one_shot"), code=2, TOY_KEY=SECRET)
    assert "TOY_KEY" in done.stderr
    assert SECRET not in done.stderr
    refused = call("run", "--task", "toy", "--agent", "opus-4.6", code=2, ANTHROPIC_API_KEY="")
    assert "ANTHROPIC_API_KEY is not set" in refused.stderr
    assert not (tmp_path / "runs").exists()
    assert provider.requests == []


def test_a_dollar_limit_stops_before_the_call_that_could_exceed_it(call, toy, provider, protocol):
    provider.otherwise = answer(MODEL, input_tokens=100, output_tokens=3_000)
    # A call costs 4.53 cents. At worst it could cost 7: 4,000 output tokens, and the prompt.
    result = call(*toy(protocol, "--steps", "9", "--max-dollars", "0.11"), TOY_KEY=SECRET).json
    assert result["valid"]
    assert "dollars, and 0.0647 of 0.11 are left" in result["ended"]
    assert result["spent"]["model"]["dollars_known"] == pytest.approx(0.0453)
    assert len(provider.requests) == result["spent"]["model"]["calls"] == 1


def test_a_run_says_what_stands_in_its_way_and_leaves_no_folder(call, no_proxy, tmp_path):
    far = ["--profile", "test", "--base-url", "https://models.invalid/v1"]
    for env, words in (
        ({"all_proxy": "socks://127.0.0.1:7890/"}, "socks://127.0.0.1:7890 (all_proxy)"),
        ({"SSL_CERT_FILE": str(tmp_path / "gone.pem")}, "SSL_CERT_FILE names no certificates"),
        ({"https_proxy": "http://127.0.0.1:9"}, "http://127.0.0.1:9 (https_proxy)"),
    ):
        done = call("run", "--task", "toy", "--agent", "gpt-oss-20b", *far, code=None, **env)
        assert done.returncode in (2, 4), done.stderr
        assert words in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_answer_that_is_all_reasoning_is_told_in_the_run_with_its_option(call, toy, provider):
    thought = answer("", thinking="hm " * 400, stop="length", usage=False)
    provider.script(thought, thought)
    command = toy("openai", "--policy", "one_shot")
    done = call(*command, code=1, TOY_KEY=SECRET, all_proxy="socks://127.0.0.1:7890/")
    assert len(provider.requests) == 2
    spent = done.json["spent"]["model"]
    assert (spent["estimated_calls"], spent["output_tokens"]) == (2, 2 * 2400)
    assert "--max-answer-tokens raises that limit" in done.stderr


def test_an_absent_and_a_retired_model_are_named_with_a_remedy(call, monkeypatch):
    monkeypatch.setattr("harness.agents.clients.today", lambda: date(2026, 10, 23))
    run = ("run", "--task", "toy", "--agent")
    assert "opus-4.5" in call(*run, "opus-4.55", code=2).stderr
    gone = call(*run, "o3-mini", code=2, OPENAI_API_KEY="k")
    assert "2026-10-23" in gone.stderr
    assert "replay:RUN" in gone.stderr
    odd = call(*run, "reference", "--effort", "high", code=2)
    assert "--effort means nothing to agent reference" in odd.stderr


def test_what_a_real_server_sent_is_read(client, provider, protocol, ask):
    provider.script(recorded(protocol))
    reply = ask(client, Prompt("", (Turn("user", "Write a function that adds two numbers."),)))
    assert reply.text.startswith("```python\ndef add_two_numbers(")
    assert (reply.stop, reply.usage.output_tokens) == ("length", 24)
    assert reply.usage.prompt_tokens == 39


def test_the_recorded_run_of_the_real_local_model_is_repeated_token_for_token(call, tmp_path):
    """Recorded by ``test_a_real_local_model_drives_the_whole_loop``; no model is needed here."""
    there = tmp_path / "recorded"
    shutil.copytree(RECORDED, there)
    toml = there / "run.toml"
    toml.write_text(toml.read_text().replace("PROMPTS", str(SMALL)))
    result = call(*_replay(there), code=1).json  # the recorded code is bad: no score is valid
    assert result["spent"]["replayed"]["calls"] >= 3
    assert result["spent"]["model"]["calls"] == 0
    assert result["replay"]["diverged"] == ""
    (repeated,) = (tmp_path / "runs").iterdir()
    written = list(there.glob("nodes/*/*.py"))
    assert len(written) == 4
    for file in written:
        assert (repeated / file.relative_to(there)).read_bytes() == file.read_bytes()
    (there / "nodes/0001/completion.md").unlink()
    changed = tmp_path / "changed"
    shutil.copytree(SMALL, changed)
    (changed / "draft.md").write_text((changed / "draft.md").read_text() + "Be brief.\n")
    toml.write_text(toml.read_text().replace(str(SMALL), str(changed)))
    differs = call(*_replay(there), code=2)
    assert "differs at node 0, call 0 (draft)" in differs.stderr
    assert "Be brief." in differs.stderr


def _replay(run: Path) -> tuple[object, ...]:
    return (
        "run", *TOY, "--steps", "4", "--set", "greedy.num_drafts=2", "--agent", f"replay:{run}",
        "--json",
    )  # fmt: skip


@pytest.mark.llm
@pytest.mark.parametrize("protocol", ["anthropic", "openai"])
def test_a_real_local_model_drives_the_whole_loop(protocol, tmp_path):
    """The model's code is bad, and is judged like any other. No valid score is required."""
    if weights() is None:
        pytest.skip(MISSING)
    with serving() as llm:
        known = entry(
            protocol, llm.base_url(protocol), context_tokens=4096, max_output_tokens=512,
            answer_tokens=300, concurrency=1,
        ) | {"model": "smollm2-135m"}  # fmt: skip
        file = agents_file(tmp_path / "agents.toml", smollm=known)
        done = calling.start(
            "run", *TOY, "--steps", "4", "--set", "greedy.num_drafts=2", "--agent", "smollm",
            "--agents-file", file, "--prompts", SMALL, "--temperature", "0", "--json",
            cwd=tmp_path, code=None,
        )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    result = done.json
    assert result["spent"]["model"]["calls"] >= 4
    assert result["spent"]["model"]["output_tokens"] > 20
    (run,) = (tmp_path / "runs").iterdir()
    assert list(run.glob("nodes/*/score.json")), "nothing of it was judged"
    assert list(run.glob("nodes/*/model.py")), "nothing of it was code"
    again = calling.start(*_replay(run), cwd=tmp_path, code=done.returncode)
    assert again.json["replay"]["diverged"] == ""
    keep = os.environ.get("HARNESS_KEEP_RECORDED")
    if keep and protocol == "openai":
        shutil.copytree(run, keep, dirs_exist_ok=True)
