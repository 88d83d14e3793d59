"""Neither a judge that fails on one node nor a display that breaks may end a run."""

import json
from types import SimpleNamespace

import pytest
from observing import interrupting, quiet
from quick_judge import QuickJudge
from test_parallel import World

from harness.base.errors import Cancelled, ConfigError, JudgeError
from harness.cli.screen import Screen
from harness.core.asked import Asked
from harness.launch.run import resume, start
from harness.search import local


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "BACK_OFF_S", 0.01)
    return World(tmp_path, monkeypatch)


@pytest.fixture
def judge(monkeypatch):
    """A judge that fails on the labels in ``broken``; ``asked`` lists the labels of all jobs."""
    found = SimpleNamespace(broken=set(), asked=[])
    judge = QuickJudge()

    def judged(evaluation, request):
        label = evaluation.job.label
        found.asked.append(label)
        if label in found.broken:
            raise ZeroDivisionError("a bug of ours")
        return judge(evaluation, request)

    monkeypatch.setattr(local, "judge", judged)
    return found


def test_a_node_that_the_judge_fails_on_twice_is_not_graded_and_the_search_goes_on(world, judge):
    judge.broken = {"1"}
    result = world.start(slots=1, steps=4)
    assert result["valid"]
    assert result["nodes"] == {"scored": 3, "valid": 3, "ungraded": 1}
    assert judge.asked.count("1") == 2
    (event,) = [e for e in world.events if e.kind == "ungraded"]
    assert event.data["node"] == 1
    assert "ZeroDivisionError: a bug of ours" in event.data["message"]
    assert not (world.run.node_dir(1) / "score.json").exists()
    chosen = [e.data["parents"] for e in world.events if e.kind == "chosen"]
    assert [1] not in chosen, "nothing is built on what nobody graded"


def test_several_in_a_row_end_the_search_and_resume_grades_them_when_the_judge_works(world, judge):
    judge.broken = {"1", "2", "3", "4", "5"}
    with pytest.raises(JudgeError) as caught:
        world.start(slots=1, steps=6)
    assert caught.value.exit_code == 3
    assert world.numbers("ungraded") == [1, 2, 3]
    assert world.run.result is None
    # Even if the judge stays broken, each resume gets further: fewer nodes are left each time.
    judge.broken.add("final")
    with pytest.raises(JudgeError):
        world.resume()
    assert world.numbers("ungraded") == [1, 2, 3, 1, 2, 3, 4, 5]
    judge.broken.clear()
    result = world.resume()
    assert result["nodes"] == {"scored": 6, "valid": 6}


def test_a_run_whose_only_node_was_not_graded_has_no_result_and_can_be_resumed(world, judge):
    judge.broken = {"0"}
    for go in (lambda: world.start(slots=1, steps=1), world.resume):
        with pytest.raises(JudgeError, match="not graded") as caught:
            go()
        assert caught.value.exit_code == 3
        assert "harness resume" in caught.value.remedy
        assert world.run.result is None, "it must not count as a run without a valid node"
        assert world.events[-1].data["status"] == "failed"
    judge.broken.clear()
    assert world.resume()["valid"]


def test_a_display_that_always_fails_changes_nothing_and_says_so_once(
    world, judge, capsys, monkeypatch
):
    def broken(*told):
        raise RuntimeError("no such column")

    # In new folders the data is prepared and the sandbox is tested, whatever ran before.
    monkeypatch.setenv("HARNESS_DATA", str(world.folder / "data"))
    monkeypatch.setenv("HARNESS_STATE", str(world.folder / "state"))
    world.use(lambda ask: None)
    asked = Asked(task="toy", agent="scripted", profile="test", steps=2, seed=3, sandbox="process")
    result = start(asked, world.folder / "runs", progress=broken, observe=broken)
    assert result["nodes"] == {"scored": 2, "valid": 2}
    said = capsys.readouterr().err
    assert said.count("no such column") == 3, "once each for the data, the self-test and the run"
    assert "the work goes on" in said


def test_ctrl_c_in_a_display_still_stops_the_run(world, judge):
    world.use(lambda ask: None)
    asked = Asked(task="toy", agent="scripted", profile="test", steps=2, seed=3, sandbox="process")
    with pytest.raises(Cancelled):
        start(asked, world.folder / "runs", progress=quiet, observe=interrupting("evaluating"))
    assert resume(world.run.path, progress=quiet, observe=quiet)["valid"]


def test_the_screen_shows_a_run_whose_folder_has_a_name_of_brackets(world, judge):
    judge.broken = {"0"}
    with pytest.raises(JudgeError):
        world.start(slots=1, steps=1)
    assert world.events[-1].kind == "closed"
    path = world.run.path.rename(world.run.path.with_name("[bold] run"))
    judge.broken.clear()
    with Screen() as screen:
        resume(path, progress=screen.progress, observe=screen.observe)
        shown = "".join(s.text for s in screen.console.render(screen._render()))
    assert "[bold] run" in shown
    assert json.loads((path / "result.json").read_text())["valid"]


def test_a_recorded_score_that_is_damaged_is_named_and_no_bug_of_ours(world, judge):
    judge.broken = {"0"}
    with pytest.raises(JudgeError):
        world.start(slots=1, steps=1)
    for text in ('{"format": 1, "valid": true}', "[" * 10_000, "1" * 9_999, '{"a": "\\ud800"}'):
        (world.run.node_dir(0) / "score.json").write_text(text)
        with pytest.raises(ConfigError, match=r"score\.json"):
            world.resume()
