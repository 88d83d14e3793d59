"""A whole blind run over real HTTP: nothing that any request holds says what the task is."""

import json
import re
from functools import partial

import calling
import pytest
from report.made_runs import make_run

from agents.provider_server import agents_file, answer, status
from harness.core.writing import Writing
from harness.operators.blinding import neutral_names
from scorers.proxies import judge
from scorers.proxies.protocol import Measured
from scorers.request import Evaluated
from tasks.spec import find_task

HIDDEN = re.compile(
    r"attention|mlp\b|mamba|compose|\baira|\bmad\b|arxiv|airaformer|transformer|state.space|jamba"
    r"|recall|copying|memoriz|compression|\bpaper\b|benchmark|\brelu\b",
    re.IGNORECASE,
)
PRIMITIVE = re.compile(r"\b(?:M|Mb|A(?! [a-z]))\b")
"""A primitive's name; "A judge" is an article."""
OF_SEED_0 = neutral_names(find_task("compose/mad"), 0)
SEED = next(s for s in range(99) if neutral_names(find_task("compose/mad"), s) != OF_SEED_0)
SUBMISSIONS = [
    "Xa Xb Xa Xb", "", "Xa Q", "Xb Xa", "Xb Xb Xa Xa", "Xa Xa Xa Xb", "Xa Xa Xa Xa",
]  # fmt: skip
"""What the model answers in turn: good, unusable (it is asked again), a wrong name, a wrong length,
and repairs and improvements."""


def texts(request):
    """Return all that a request tells the model."""

    def found(value):
        match value:
            case str():
                yield value
            case dict() | list():
                for inner in value.values() if isinstance(value, dict) else value:
                    yield from found(inner)

    return list(found([request.body.get("system"), request.body.get("messages")]))


@pytest.fixture
def call(tmp_path):
    return partial(calling.call, cwd=tmp_path)


@pytest.fixture
def model(provider, tmp_path):
    known = {
        "title": "A model for tests", "provider": "openai", "model": "m",
        "base_url": provider.base_url("openai"), "context_tokens": 100_000,
        "max_output_tokens": 4_000, "answer_tokens": 4_000,
    }  # fmt: skip
    return ("--agent", "toy", "--agents-file", agents_file(tmp_path / "agents.toml", toy=known))


def at_once(trials):
    """Stand in for a training, whose outcome a replay does not need."""
    part = Measured(accuracy=0.5, macro=0.5, loss=1.0, row_error=0.01, loss_error=0.01, curve=())
    return [
        Evaluated(judge._trained(trial.request, {"part": part}, (), 0.0, ()), b"")
        for trial in trials
    ]


def test_no_request_of_a_run_says_what_the_task_is(call, model, provider, tmp_path, monkeypatch):
    left = list(SUBMISSIONS)

    def reply(request):
        if "Request: an analysis" in texts(request)[-1]:
            return answer("It went as expected.")
        if len(left) == 2 and not provider.refused:
            provider.refused = True
            return status(401)
        given = left.pop(0)
        return answer(f"An idea.\n\n```architecture.txt\n{given}\n```" if given else "")

    provider.refused = False
    provider.otherwise = reply
    what = ("--task", "compose/mad", "--profile", "test", "--steps", 6, "--seed", SEED)
    settings = ("--set", "greedy.num_drafts=2", "--set", "greedy.debug_prob=1.0")
    call("run", *what, *settings, *model, "--blind", "--analyze", "--name", "b", code=2)
    run = tmp_path / "runs/b"
    result = call("resume", run, "--json").json
    assert provider.refused
    assert left == []
    assert result["valid"]
    assert result["nodes"] == {"scored": 6, "valid": 4}

    asked = [text for request in provider.requests for text in texts(request)]
    for text in asked:
        assert not HIDDEN.search(text), text
        assert not PRIMITIVE.search(text), text
    whole = "\n".join(asked)
    for shown in (
        "'Q' is not a primitive; there are Xa and Xb",
        "4 layers are wanted, and it has 2",
        "Submitted: Xa Xb Xa Xb",
        "part 1: accuracy",
        "Request: a repair",
        "Your answer cannot be used as it is",
    ):
        assert shown in whole, shown

    hidden = neutral_names(find_task("compose/mad"), SEED)
    names = {neutral: real for real, neutral in hidden.items()}
    judged = [(run / f"nodes/{n:04d}/architecture.txt").read_text().split() for n in (0, 4, 5)]
    sent = [SUBMISSIONS[0], SUBMISSIONS[5], SUBMISSIONS[6]]
    assert judged == [[names[name] for name in given.split()] for given in sent]
    assert json.loads((run / "lock.json").read_text())["asked"]["writing"]["blind"] is True
    assert "blind = true" in (run / "run.toml").read_text()
    assert f"Xa for {names['Xa']}" in call("show", run).stdout

    before = len(provider.requests)
    monkeypatch.setattr(judge, "_judged", at_once)
    again = call("run", *what, *settings, "--agent", f"replay:{run}", "--json").json
    assert len(provider.requests) == before
    assert again["replay"]["diverged"] == ""
    assert again["nodes"] == result["nodes"]


def test_who_and_what_cannot_be_blind_is_refused_before_anything_is_made(call, model, tmp_path):
    mad = ("--task", "compose/mad", "--profile", "test", "--blind")
    for more, words in (
        ((*mad, "--agent", "evolution"), "--blind means nothing to agent evolution"),
        ((*mad, "--agent", "replay:runs/x"), "--blind means nothing to agent replay"),
        ((*mad, *model, "--literature", tmp_path), "would tell a blind model"),
        (("--task", "lra/listops", "--blind", *model), "lra/listops cannot be blind"),
    ):
        (tmp_path / "note.md").write_text("# A note\n")
        done = call("run", *more, code=2)
        assert words in " ".join(done.stderr.split())
    assert not (tmp_path / "runs").exists()


def test_blind_runs_are_an_entry_of_their_own_everywhere(call, tmp_path):
    same = {"task": "compose/mad", "profile": "short", "metric": "token_accuracy"}
    for seed in range(3):
        make_run(tmp_path / "runs", seed, 0.5, name=f"open-{seed}", **same)
        make_run(tmp_path / "runs", seed, 0.3, name=f"blind-{seed}", writing=Writing(blind=True),
                 **same)  # fmt: skip
    (table,) = call("leaderboard", "--json").json["tables"]
    rows = [(r["agent"], r["setup"], r["cells"]["compose/mad"]["mean"]) for r in table["rows"]]
    assert rows == [("one", "", 0.5), ("one", "blind", pytest.approx(0.3))]
    assert "blind" in call("leaderboard").stdout
    alone = call("leaderboard", *(tmp_path / f"runs/blind-{s}" for s in range(3)), "--json").json
    assert [row["setup"] for row in alone["tables"][0]["rows"]] == ["blind"]
    (compared,) = call("compare", "one", "one (blind)", "--json").json["tasks"]
    assert compared["difference"]["mean"] == pytest.approx(-0.2)
    sides = call("compare", tmp_path / "runs", tmp_path / "runs", "--json").json["tasks"]
    assert sorted(round(s["a"]["mean"], 6) for s in sides) == [0.3, 0.5]
    call("report", "-o", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "one x greedy (blind)" in page
    assert "<dt>blind</dt><dd>no, yes</dd>" in page
    assert "told neither the names of the task nor of its layers" in page
