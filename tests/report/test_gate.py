"""The gate: its exit codes, what it says, and that it fails when a design is made worse."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from calling import call
from toy_task import TOY

from .made_runs import BITS, make_run, make_runs

ROOT = Path(__file__).parents[2]
BEFORE = {0: 0.600, 1: 0.620, 2: 0.610, 3: 0.605}


def moved(by):
    return {s: v + by + 0.001 * (-1) ** s for s, v in BEFORE.items()}


@pytest.fixture
def baseline(tmp_path):
    make_runs(tmp_path / "before", BEFORE)
    file = tmp_path / "baseline.json"
    file.write_text(call("baseline", tmp_path / "before").stdout)
    return file


def check(baseline, runs, *more, code=0):
    return call("check", runs, "--baseline", baseline, *more, code=code)


@pytest.mark.parametrize(
    ("by", "code", "word"),
    [
        (+0.02, 0, "no regression"),
        (0.0, 0, "no regression"),
        (-0.005, 0, "no regression"),
        (-0.0101, 5, "cannot tell"),
        (-0.03, 1, "REGRESSION"),
    ],
)
def test_verdict_and_exit_code(baseline, tmp_path, by, code, word):
    make_runs(tmp_path / "after", moved(by))
    text = check(baseline, tmp_path / "after", "--max-drop", "0.01", code=code).stdout
    assert f"{word} (exit {code})" in text
    assert "of 100 cases" in text  # the power of the test
    found = check(baseline, tmp_path / "after", "--max-drop", "0.01", "--json", code=code).json
    assert found["exit_code"] == code
    assert (found["checks"][0]["further_seeds"] is not None) == (code == 5)


def test_drop_is_relative_or_absolute_and_the_verdict_says_which(baseline, tmp_path):
    make_runs(tmp_path / "after", moved(-0.02))
    after = tmp_path / "after"
    assert "5% of the baseline" in check(baseline, after, "--max-drop", "5%").stdout
    assert "allowed -0.03044" in check(baseline, after, "--max-drop", "5%").stdout
    assert "0.05" in check(baseline, after, "--max-drop", "0.05").stdout
    check(baseline, after, "--max-drop", "0.5%", code=1)
    check(baseline, after, code=1)  # the default, 0.5%
    for nonsense in ("-1", "nan", "much", "%"):
        assert "0.5%" in check(baseline, after, "--max-drop", nonsense, code=2).stderr


def test_lower_is_better_where_the_task_says_so(tmp_path):
    make_runs(tmp_path / "before", {0: 1.00, 1: 1.01, 2: 1.005}, **BITS)
    (tmp_path / "b.json").write_text(call("baseline", tmp_path / "before").stdout)
    make_runs(tmp_path / "worse", {0: 1.10, 1: 1.12, 2: 1.11}, **BITS)
    make_runs(tmp_path / "better", {0: 0.90, 1: 0.92, 2: 0.91}, **BITS)
    check(tmp_path / "b.json", tmp_path / "worse", "--max-drop", "1%", code=1)
    check(tmp_path / "b.json", tmp_path / "better", "--max-drop", "1%")


def test_runs_that_became_invalid_are_a_regression(baseline, tmp_path):
    make_runs(tmp_path / "after", dict.fromkeys(BEFORE))
    text = check(baseline, tmp_path / "after", code=1).stdout
    assert "4 of 4 runs invalid" in text


def test_a_run_that_our_side_broke_is_no_regression(baseline, tmp_path):
    make_runs(tmp_path / "after", {s: moved(0)[s] for s in (0, 1, 2)})
    make_run(tmp_path / "after", 3, closed="failed", message="the engine went away")
    assert "the engine went away" in check(baseline, tmp_path / "after", "--max-drop", "3%").stdout


@pytest.mark.parametrize(
    ("how", "says", "option"),
    [
        ({"data_hash": "e" * 16}, "other conditions: data", ("--across", "data")),
        ({"hardware": {"cpu": "Xeon"}}, "hardware", ("--across", "hardware")),
        ({"agent": "two"}, "no runs of it", None),
        ({"task": "lra/text"}, "no runs of it", None),
    ],
)
def test_other_conditions_cannot_tell(baseline, tmp_path, how, says, option):
    make_runs(tmp_path / "after", moved(0), **how)
    text = check(baseline, tmp_path / "after", code=5).stdout
    assert says in text
    assert "more seeds will not settle it" in text
    if option:
        check(baseline, tmp_path / "after", "--max-drop", "1%", *option)


def test_replays_stand_for_the_recorded_agent_unless_they_left_it(baseline, tmp_path):
    """So a new scorer can be tested on recorded answers of a model, without an API key."""
    for seed, run in enumerate(sorted((tmp_path / "before").iterdir())):
        again = {"of": str(run), "diverged": "", "other_scores": []}
        make_run(tmp_path / "same", seed, moved(0)[seed], agent=f"replay:{run}", replay=again,
                 name=f"r{seed}", scorer="3+new")  # fmt: skip
        left = {**again, "diverged": "node 3"}
        make_run(tmp_path / "left", seed, 0.9, agent=f"replay:{run}", replay=left, name=f"l{seed}")
    assert "4 pairs" in check(baseline, tmp_path / "same", "--max-drop", "1%").stdout
    assert "no runs of it" in check(baseline, tmp_path / "left", code=5).stdout


@pytest.mark.parametrize("how", [{"scorer": "3+new"}, {"task_hash": "u" * 16}])
def test_a_changed_scorer_or_task_is_what_is_tried(baseline, tmp_path, how):
    make_runs(tmp_path / "after", moved(0), **how)
    assert "→" in check(baseline, tmp_path / "after", "--max-drop", "1%").stdout


def test_runs_of_before_and_after_in_one_folder_are_not_picked_from(baseline, tmp_path):
    make_runs(tmp_path / "after", moved(-0.1), scorer="3+new")
    make_runs(tmp_path / "after", {4: 0.7, 5: 0.7})
    text = check(baseline, tmp_path / "after", code=5).stdout
    assert "several conditions: scorer differ" in text


def test_junit_has_a_failure_and_an_error(baseline, tmp_path):
    make_runs(tmp_path / "before", BEFORE, task="lra/text")
    baseline.write_text(call("baseline", tmp_path / "before").stdout)
    make_runs(tmp_path / "after", moved(-0.1))
    check(baseline, tmp_path / "after", "--junit", tmp_path / "out.xml", code=1)
    suite = ET.parse(tmp_path / "out.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "1")
    failed = suite.find("testcase/failure")
    assert "difference -0.1000" in failed.text


def test_baseline_is_small_and_a_diff_shows_the_seed_that_moved(baseline, tmp_path):
    text = baseline.read_text()
    assert len(text) < 1000
    make_runs(tmp_path / "after", {**BEFORE, 2: 0.7})
    other = call("baseline", tmp_path / "after").stdout
    changed = set(text.splitlines()) ^ set(other.splitlines())
    assert changed == {'    "2": [0.61],', '    "2": [0.7],'}


@pytest.mark.parametrize(
    "text", ["", "{}", '{"format": 2}', '{"format": 1, "harness": "x", "groups": [{}]}', "[1]"]
)
def test_a_damaged_baseline_is_bad_input(tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    make_run(tmp_path / "after")
    check(tmp_path / "b.json", tmp_path / "after", code=2)


def test_a_baseline_of_another_format_says_how_to_make_one(tmp_path):
    make_run(tmp_path / "after")
    for text, told in (("{}", "names no format"), ('{"format": 2}', "has format 2")):
        (tmp_path / "b.json").write_text(text)
        said = check(tmp_path / "b.json", tmp_path / "after", code=2).stderr
        assert told in said
        assert "harness baseline RUNS" in said


def test_nothing_to_make_a_baseline_of_is_bad_input(tmp_path):
    make_run(tmp_path, closed="")
    call("baseline", tmp_path, code=2)


def run_toy(place, seed):
    """Run the toy task from start to end, with the judge, in the sandbox ``process``."""
    call("run", *TOY, "--steps", 1, "--seed", seed, "--sandbox", "process", "--runs-dir", place)


@pytest.mark.slow
def test_real_runs_pass_the_gate_until_their_design_is_made_worse(tmp_path, changed_toy):
    half = changed_toy() / "designs/half.py"
    half.write_text(half.read_text().replace("STEP_S = 0.01", "STEP_S = 0"))
    for seed in (0, 1):
        run_toy(tmp_path / "before", seed)
    (tmp_path / "b.json").write_text(call("baseline", tmp_path / "before").stdout)
    assert "identical" in check(tmp_path / "b.json", tmp_path / "before").stdout
    shutil.copy(half.with_name("constant.py"), half)
    for seed in (0, 1):
        run_toy(tmp_path / "worse", seed)
    check(tmp_path / "b.json", tmp_path / "worse", "--max-drop", "2%", code=1)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_gate_of_this_repository_fails_when_a_reference_design_is_made_worse(tmp_path):
    """In a copy of the files, `.ci/gate` exits 1 after the design ``tree`` is cut to one round."""
    compiled = shutil.ignore_patterns("__pycache__")
    for name in ("harness", "tasks", "sandboxes", "scorers", "tests/gate", ".ci"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=compiled)
    shutil.copy(ROOT / "tests" / "baseline.json", tmp_path / "tests")
    design = tmp_path / "tasks/lra/listops/designs/tree.py"
    text = design.read_text()
    worse = text.replace("self.rounds = max(2, ", "self.rounds = min(1, ")
    assert worse != text
    design.write_text(worse)
    environ = {**os.environ, "PYTHON": sys.executable, "SEEDS": "0 1 2", "JUNIT": "out.xml"}
    with subprocess.Popen(
        [tmp_path / ".ci" / "gate"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    ) as gate:  # fmt: skip
        try:
            out, err = gate.communicate(timeout=230)
        except BaseException:
            os.killpg(gate.pid, signal.SIGKILL)  # its runs too
            raise
    assert gate.returncode == 1, out + err
    assert "regression: gate/listops" in out
    assert ET.parse(tmp_path / "out.xml").getroot().get("failures") == "1"
