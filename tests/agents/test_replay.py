"""Whole runs of an agent with a model: budgets, providers that fail and die, and replay."""

import json
import math
import shutil
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from observing import interrupting, quiet

from agents import scripted
from agents.lives import Lives
from harness.agents import AGENTS
from harness.base.errors import Cancelled, ConfigError, ProviderError
from harness.core.asked import Asked
from harness.launch.run import resume, start
from harness.report.summary import summarize
from harness.report.tree_view import as_json, show_tree
from harness.store.journal import read
from harness.store.loading import load
from harness.store.tape import Divergence, Tape


@pytest.fixture
def agent(server, monkeypatch):
    """The scripted agent, registered under its name; the server is its provider."""
    monkeypatch.setitem(AGENTS.ours, "scripted", scripted.Scripted)
    monkeypatch.setattr(scripted.Scripted, "port", server.port)
    return scripted.Scripted


@pytest.fixture
def judged(monkeypatch):
    """Replace the judge by an instant one: these tests check requests, not scores."""
    monkeypatch.setattr("harness.search.local.judge", scripted.judge)


@pytest.fixture(scope="module")
def recorded():
    return []


@pytest.fixture
def first(tmp_path, tmp_path_factory, server, agent, isolating, recorded):
    """A copy of a run of four nodes, recorded once with the real judge. Its provider now fails."""
    if not recorded:
        recorded.append(run(tmp_path_factory.mktemp("first"), time_s=500.0))
        assert server.asked.total() == 5
    server.dead = True
    server.asked.clear()
    own = shutil.copytree(recorded[0]["run"], tmp_path / "first")
    return {**recorded[0], "run": str(own)}


def run(runs: Path, agent: str = "scripted", **more) -> dict:
    more = {"steps": 4, "sandbox": "process", "settings": ("greedy.num_drafts=2",), **more}
    if agent.startswith("replay:"):
        more.pop("sandbox")
    observe = more.pop("observe", quiet)
    asked = Asked(task="toy", agent=agent, profile="test", **more)
    return start(asked, runs, progress=quiet, observe=observe)


def submissions(result: dict) -> dict[int, dict[str, str]]:
    return {node.number: node.files for node in load(Path(result["run"])).state.tree}


def steps(result: dict) -> list[tuple]:
    return [(n.number, n.operator, n.parents) for n in load(Path(result["run"])).state.tree]


def events(run: Path, kind: str) -> list[dict]:
    return [e.data for e in read(run / "events.jsonl") if e.kind == kind]


def test_a_run_that_may_not_pay_another_call_ends_well_with_its_best_so_far(
    tmp_path, server, agent, judged, capsys
):
    result = run(tmp_path, steps=20, output_tokens=170)
    assert result["valid"]
    assert server.asked.total() == 8  # 7 answers of 10 leave room for a worst case of 100
    path = Path(result["run"])
    (exhausted,) = events(path, "exhausted")
    assert exhausted["message"] == result["ended"]
    assert "100 output tokens, and 90 of 170 are left" in result["ended"]
    model = result["spent"]["model"]
    assert (model["calls"], model["output_tokens"]) == (8, 80)
    assert model["dollars"] == pytest.approx(sum(r.dollars for r in Tape(path)))
    assert "8 calls" in summarize(result)
    show_tree(path)
    assert "8 calls" in capsys.readouterr().out
    json.dumps(as_json(path, None)["spent"])


def test_a_dollar_limit_without_a_price_is_refused_before_anything_begins(
    tmp_path, server, agent, judged, monkeypatch
):
    monkeypatch.setattr(agent, "price", staticmethod(scripted.unknown))
    with pytest.raises(ConfigError, match="price of scripted is unknown") as caught:
        run(tmp_path, dollars=3.0)
    assert "--max-input-tokens" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []
    assert server.asked.total() == 0
    result = run(tmp_path, steps=1)
    assert result["spent"]["model"]["dollars"] is None
    assert "price unknown" in summarize(result)


def test_a_provider_that_fails_often_and_then_dies_loses_nothing_and_pays_nothing_twice(
    tmp_path, server, agent, judged
):
    server.fail_rate = 0.3
    dies_at = 4

    def observe(what: str, label: str, details: dict) -> None:
        server.dead = server.dead or (what == "scored" and label == str(dies_at))

    with pytest.raises(ProviderError) as caught:
        run(tmp_path, steps=8, observe=observe)
    assert caught.value.exit_code == 4
    (path,) = tmp_path.iterdir()
    assert events(path, "closed")[-1]["status"] == "failed"
    before = submissions({"run": path})
    assert len([n for n in before.values() if n]) == dies_at + 1
    server.dead = False
    result = resume(path, progress=quiet, observe=quiet)
    assert result["nodes"]["scored"] == 8
    assert {n: f for n, f in submissions(result).items() if n <= dies_at} == {
        n: f for n, f in before.items() if n <= dies_at
    }
    assert server.asked.total() > server.answered.total() == result["spent"]["model"]["calls"]
    assert set(server.answered.values()) == {1}
    assert result["spent"]["lost"]["calls"] == 0


def test_a_run_stopped_in_the_middle_of_a_node_asks_only_what_was_not_answered(
    tmp_path, server, agent, judged, monkeypatch
):
    """Time passes before the resume, but the prompts, which state the time left, do not change."""
    monkeypatch.setattr(agent, "stops_between_calls", True)
    with pytest.raises(Cancelled):
        run(tmp_path, time_s=500.0)
    monkeypatch.setattr(agent, "stops_between_calls", False)
    (path,) = tmp_path.iterdir()
    asked = server.asked.total()
    result = resume(path, progress=quiet, observe=quiet)
    assert result["nodes"]["scored"] == 4
    assert set(server.asked.values()) == {1}
    assert server.asked.total() == asked + 1 + 1
    lefts = [n["left"]["time_s"] for n in events(path, "chosen")]
    assert lefts == sorted(lefts, reverse=True)
    assert lefts[0] <= 500


def test_kills_while_questions_are_under_way_ask_again_only_those(tmp_path, server):
    with Lives("run_driver.py", tmp_path, server.port) as lives:
        for answers in (1, 2, 0, 2):
            asked = server.asked.total()
            server.allow(answers)
            lives.begin()
            server.until(lambda asked=asked + answers: server.asked.total() > asked)
            lives.kill()
            server.allow(math.inf)
            server.until(lambda: server.under_way == 0)
        lives.begin()
        assert lives.end() == 0
    (path,) = tmp_path.iterdir()
    records = list(Tape(path))
    assert [(r.node, r.call) for r in records] == [
        (n, k) for n in range(6) for k in range(1 + (n % 3 == 2))
    ]
    assert {r.status for r in records} == {"answered"}
    lost = sum(len(r.lost) for r in records)
    assert lost == 4
    assert server.asked.total() == len(records) + lost


def test_a_replay_gives_the_same_submissions_and_sends_nothing(tmp_path, server, first):
    again = run(tmp_path, f"replay:{first['run']}", steps=0, time_s=60.0)
    assert submissions(again) == submissions(first)
    assert (again["score"], again["nodes"]) == (first["score"], first["nodes"])
    assert server.asked.total() == 0
    assert again["replay"] == {
        "of": str(Path(first["run"]).resolve()), "diverged": "", "other_scores": [],
    }  # fmt: skip
    spent, was = again["spent"], first["spent"]["model"]
    assert spent["model"]["calls"] == 0
    assert spent["model"]["dollars"] == 0.0
    assert spent["replayed"] == was
    assert "$0 now" in summarize(again)


def test_a_replay_can_be_repeated_when_what_it_repeated_is_gone_but_for_its_name(
    tmp_path, agent, isolating, judged
):
    first = run(tmp_path)
    again = run(tmp_path, f"replay:{first['run']}")
    shutil.rmtree(Path(first["run"]) / "nodes")
    third = run(tmp_path, f"replay:{again['run']}", steps=3)
    assert submissions(third) == {n: f for n, f in submissions(again).items() if n < 3}


def test_a_replay_of_nodes_evaluated_at_once_holds_whatever_finishes_first(
    tmp_path, server, agent, isolating, monkeypatch
):
    def run_in(order: list[int], *arguments, **more) -> dict:
        """Do a run whose nodes are scored in this order."""
        scored = {str(number): threading.Event() for number in order}
        before = {str(number): scored[str(last)] for last, number in pairwise(order)}

        def judge(evaluation, request):
            if evaluation.job.label in before:
                assert before[evaluation.job.label].wait(scripted.PATIENCE_S)
            return scripted.judge(evaluation, request)

        def observe(what: str, label: str, details: dict) -> None:
            if what == "scored":
                scored[label].set()

        monkeypatch.setattr("harness.search.local.judge", judge)
        drafts = ("greedy.num_drafts=3",)
        result = run(tmp_path, *arguments, settings=drafts, observe=observe, **more)
        assert [e["node"] for e in events(Path(result["run"]), "scored")] == order
        return result

    first = run_in([2, 1, 0, 5, 4, 3, 8, 7, 6], steps=9, workers=3)
    asked = server.asked.total()
    for workers in (3, 1):
        again = run_in(list(range(9)), f"replay:{first['run']}", steps=0, workers=workers)
        assert submissions(again) == submissions(first)
        assert steps(again) == steps(first)
    assert server.asked.total() == asked


def test_a_replay_goes_on_after_a_kill(tmp_path, server, first, judged):
    with pytest.raises(Cancelled):
        run(tmp_path / "again", f"replay:{first['run']}", observe=interrupting("scored", "2"))
    (path,) = (tmp_path / "again").iterdir()
    again = resume(path, progress=quiet, observe=quiet)
    assert submissions(again) == submissions(first)
    assert again["spent"]["replayed"] == first["spent"]["model"]
    assert server.asked.total() == 0


def test_an_answer_that_is_now_read_in_another_way_is_named(
    tmp_path, agent, first, judged, monkeypatch
):
    write = agent.write

    def parse(self, ask):
        answer = write(self, ask)
        return replace(answer, files={"model.py": answer.files["model.py"].strip()})

    monkeypatch.setattr(agent, "write", parse)
    with pytest.raises(Divergence, match="node 0: the answers gave other files"):
        run(tmp_path, f"replay:{first['run']}")


def test_a_prompt_that_deviates_is_named_and_nothing_is_sent(
    tmp_path, server, agent, first, judged, monkeypatch
):
    monkeypatch.setattr(agent, "extra", "think \x1b[31mhard")
    with pytest.raises(Divergence, match=r"node 0, call 0 \(draft\)") as caught:
        run(tmp_path, f"replay:{first['run']}")
    assert caught.value.exit_code == 2
    assert "+ think \ufffd[31mhard" in caught.value.cause
    assert "--on-divergence live" in caught.value.remedy
    assert server.asked.total() == 0


def test_a_deviating_replay_may_go_on_live_and_is_marked_for_good(
    tmp_path, server, agent, first, judged, monkeypatch
):
    server.dead = False
    write = agent.write

    def later(self, ask):
        monkeypatch.setattr(agent, "extra", "hard" if ask.node >= 3 else "")
        return write(self, ask)

    monkeypatch.setattr(agent, "write", later)
    said: list[str] = []

    def observe(what: str, label: str, details: dict) -> None:
        said.append(details.get("message", ""))
        if (what, label) == ("scored", "3") and len(list((tmp_path / "again").iterdir())) == 1:
            raise KeyboardInterrupt

    live = {"on_divergence": "live", "steps": 6, "observe": observe}
    with pytest.raises(Cancelled):
        run(tmp_path / "again", f"replay:{first['run']}", **live)
    assert any("From here on the model is asked" in line for line in said)
    (path,) = (tmp_path / "again").iterdir()
    again = resume(path, progress=quiet, observe=quiet)
    mine, theirs = submissions(again), submissions(first)
    assert len(mine) == 6
    assert [mine[n] == theirs[n] for n in range(4)] == [True, True, True, False]
    assert server.asked.total() == 4  # nodes 3 and 4 once, node 5 twice
    assert "node 3, call 0" in again["replay"]["diverged"]
    assert (again["spent"]["replayed"]["calls"], again["spent"]["model"]["calls"]) == (4, 4)
    assert "WENT ON LIVE" in summarize(again)


def test_a_damaged_recording_is_refused_by_the_name_of_its_file(tmp_path, first):
    file = Path(first["run"]) / "nodes/0001/calls/000.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(ConfigError, match=f"{file}"):
        run(tmp_path, f"replay:{first['run']}")


@pytest.mark.parametrize(
    ("other", "words"),
    [({"seed": 4}, "seed: there 0, here 4"), ({"settings": ()}, "settings")],
)
def test_a_replay_asked_otherwise_than_its_run_is_refused_with_the_command(
    tmp_path, first, other, words
):
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, f"replay:{first['run']}", **other)
    assert words in caught.value.cause
    assert "--seed 0 --set greedy.num_drafts=2" in caught.value.remedy


@pytest.mark.parametrize("name", ["reference", "random"])
def test_agents_without_a_model_are_replayed_from_their_files(tmp_path, isolating, judged, name):
    first = run(tmp_path, name)
    again = run(tmp_path, f"replay:{first['run']}", steps=6)
    assert submissions(again) == submissions(first)
    assert "ends here, after 4 nodes" in again["ended"]
    assert [n["knobs"] for n in events(Path(again["run"]), "written")] == [
        n["knobs"] for n in events(Path(first["run"]), "written")
    ]
    file = Path(first["run"]) / "nodes/0001/model.py"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(ConfigError, match="not what the journal recorded"):
        run(tmp_path, f"replay:{first['run']}")


def test_there_is_nothing_to_go_on_with_where_no_model_was_asked(tmp_path, judged):
    first = run(tmp_path, "reference", steps=1)
    with pytest.raises(ConfigError, match="has no model"):
        run(tmp_path, f"replay:{first['run']}", on_divergence="live")


def test_a_run_can_be_named_as_it_stands_under_runs(tmp_path, judged, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run(Path("runs"), "reference", steps=1)
    shutil.move(first["run"], "runs/mine")
    from harness.launch.agents import make_agent

    assert make_agent("replay:mine").name == f"replay:{tmp_path / 'runs/mine'}"
    with pytest.raises(ConfigError, match="There is no run"):
        make_agent("replay:yours")
