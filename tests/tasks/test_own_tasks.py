"""Tests users' own tasks: errors name the user's file, line and words, and stop no other task."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from calling import call

from harness.base.errors import ConfigError
from tasks.definition import TASKS_DIR
from tasks.runner import settings_read
from tasks.spec import all_tasks, find_task


@pytest.fixture
def mine(changed_toy: Callable[..., Path]) -> Path:
    """A folder of tasks with one good task, ``mine``, in it."""
    task = changed_toy(('name = "toy"', 'name = "mine"'), name="mine")
    edit(task / "toy_data.py", 'task="toy"', 'task="mine"')
    return task


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def line(file: Path, beginning: str) -> int:
    lines = file.read_text().splitlines()
    return 1 + next(i for i, text in enumerate(lines) if text.startswith(beginning))


def complaint(*args: object) -> str:
    """Run a command that must fail with exit code 2; return its output as one line."""
    said = call(*args, code=2).said
    assert "please report" not in said
    assert "pydantic" not in said
    return " ".join(said.split())


def prepare(root: Path, profile: str = "test") -> str:
    with pytest.raises(ConfigError) as error:
        find_task("mine").prepare(profile, root, lambda *_: None)
    return str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "begins", "wanted"),
    [
        ('"classification"', '"poetry"', "kind", "'poetry'; wanted: 'classification' or"),
        ("designs = [", "design = [", "design =", "design is unknown; did you mean 'designs'"),
        ('entry = "runner.py"', 'entry = "run.py"', "entry", "wanted: runner.py"),
        ('runner = ["runner.py"]', 'runner = "runner.py"', "runner", "'runner.py'; wanted: a list"),
        ('metric = "accuracy"', 'metric = "bits_per_byte"', "metric", "wanted: ('accuracy'"),
        ('"maximize"', '"minimize"', "direction", "not what classification has"),
        ("train_s = 2.0", "train_s = 0", "limits = { train_s = 0", "train_s is 0; wanted: greater"),
        ("train_s = 2.0", "train_s = inf", "limits = { train_s = inf", "inf; wanted: a finite"),
        ("memory_mb = 256", "memory_mb = -1", "limits = { train_s = 2.0", "memory_mb is -1"),
        ("search_steps = 2", 'search_steps = "two"', 'search_steps = "two"', "valid integer"),
        ("about = \"The only size.\"", "", "[profiles.test]", "profiles.test.about is missing"),
        ("rows = 400", "rows = [4]", "data = {", "[4]; wanted: a valid integer or a valid number"),
        ('choices = ["plain", "fancy"]', "low = 3", "style = { low", "choices, or low < high"),
        ('name = "mine"', 'name = "../mine"', "name", "'../mine'; wanted: "),
    ],
)  # fmt: skip
def test_a_mistake_in_the_definition_is_told_with_its_line(
    mine: Path, old: str, new: str, begins: str, wanted: str
) -> None:
    toml = mine / "task.toml"
    edit(toml, old, new)
    with pytest.raises(ConfigError) as error:
        find_task("mine" if "name" not in old else "../mine")
    said = str(error.value)
    assert str(toml) in said
    assert f"line {line(toml, begins)}, " in said
    assert wanted in said


@pytest.mark.parametrize(
    "content", [b"name = \n", b"a = 1\na = 2\n", b"\xff\xfe", b"[" * 100_000, b"x = " + b"9" * 9000]
)
def test_a_broken_folder_stops_no_other(mine: Path, content: bytes, tmp_path: Path) -> None:
    bad = mine.parent / "bad"
    bad.mkdir()
    (bad / "task.toml").write_bytes(b'name = "bad"\n' + content)
    table, _, below = call("tasks", COLUMNS="200").said.partition("broken: ")
    assert "mine" in table
    assert "lra/text" in table
    assert str(bad / "task.toml") in below
    found = call("tasks", "--json").json
    assert [one["folder"] for one in found["broken"]] == [str(bad)]
    assert found["broken"][0]["cause"]
    assert find_task("mine").prepare("test", tmp_path, lambda *_: None)[1].rows["test"] == 400
    assert str(bad / "task.toml") in complaint("tasks", "show", "bad")
    assert str(bad) in complaint("tasks", "show", "nowhere")


def test_a_folder_that_cannot_be_read_is_named_and_stops_no_other(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut = mine.parent / "shut"
    shutil.copytree(mine, shut)
    scandir = os.scandir

    def refused(path: str) -> object:
        if Path(path) == shut:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert f"{shut} cannot be read." in complaint("tasks", "show", "nowhere")
    found = call("tasks", "--json").json
    assert [one["folder"] for one in found["broken"]] == [str(shut)]
    assert find_task("mine").name == "mine"


def test_two_of_one_name_stop_nothing_but_that_name(mine: Path) -> None:
    shutil.copytree(mine, mine.parent / "second")
    call("tasks")
    assert "Two tasks are called mine" in complaint("tasks", "show", "mine")
    assert find_task("lra/text").name == "lra/text"


def test_a_folder_that_is_searched_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {name for name in all_tasks() if not name.startswith("toy")}
    monkeypatch.setenv("HARNESS_TASKS_DIR", str(TASKS_DIR))
    assert set(all_tasks()) == alone


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_that_is_there\n", ", line 1: import nothing_that_is_there: ModuleNotF"),
        ("x = 1\ndef prepare(:\n", ", line 2: def prepare(:: SyntaxError"),
        ("import sys\nsys.exit(0)\n", ", line 2: sys.exit(0): it ends the process"),
        ("prepare = 3\n", "has no prepare(profile, data, root, progress)"),
        ("def prepare(profile, data):\n  pass\n", "has no prepare(profile, data, root, progress)"),
        ("def prepare(p, d, r, s):\n  return 1 / 0\n", ", line 2: return 1 / 0: ZeroDivisionError"),
        ("def prepare(p, d, r, s):\n  return d['row']\n", "did you mean 'rows'"),
        ("def prepare(p, d, r, s):\n  open('/nowhere/x')\n", ", line 2: open('/nowhere/x'): F"),
        ("def prepare(p, d, r, s):\n  pass\n", "it returned 'None'; wanted: the path"),
        ("def prepare(p, d, r, s):\n  return '/tmp'\n", "is not below the folder that it is given"),
        ("def prepare(p, d, r, s):\n  return r / 'x'\n", "x is no folder"),
    ],
)  # fmt: skip
def test_what_its_module_does_is_told_with_file_and_line(
    mine: Path, tmp_path: Path, text: str, said: str
) -> None:
    (mine / "toy_data.py").write_text(text)
    found = prepare(tmp_path)
    assert str(mine / "toy_data.py") in found
    assert said in found


def test_a_manifest_that_its_module_did_not_write_is_named(mine: Path, tmp_path: Path) -> None:
    (mine / "toy_data.py").write_text("def prepare(p, d, r, s):\n  return r\n")
    assert f"{tmp_path / 'manifest.json'} cannot be read" in prepare(tmp_path)


def test_a_source_that_is_not_there_is_no_disk_that_cannot_be_written(
    mine: Path, tmp_path: Path
) -> None:
    (mine / "toy_data.py").write_text(
        "from tasks.spec import Strict\nfrom tasks.lra.rows import prepare_rows\n"
        "def prepare(profile, data, root, progress):\n"
        "    return prepare_rows('mine', profile, '1', Strict(), make, root, progress)\n"
        "def make():\n    open('/nowhere/corpus.txt')\n"
    )
    found = prepare(tmp_path)
    assert "line 6: open('/nowhere/corpus.txt'): FileNotFoundError" in found
    assert "free some space" not in found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (".astype(np.uint8)", ".astype(float)", "train/tokens.npy is of float64; wanted: integers"),
        (".astype(np.uint8)", ".astype(object)", "cannot be read"),
        ("tokens[:, 0] - 1)", "tokens[:, 0] * np.nan)", "train/labels.npy is of float64"),
        ("tokens[:, 0] - 1)", "tokens[:, 0])", "train/labels.npy holds 1 to 4; wanted: 0 to 3"),
        ("tokens[:, 0] - 1)", "tokens[:9, 0])", "has the shape (9,); wanted: (400,)"),
        ("size=(rows, 8)", "size=(rows, 7)", "has the shape (400, 7); wanted: (400, 8)"),
        ("integers(1, 5", "integers(1, 6", "holds 1 to 5; wanted: 0 to 4"),
        ('"classes": 4', '"classs": 4', "says no classes"),
        ("profile=profile", "profile='short'", "is of profile short; wanted: test"),
        ("files=files", "files={}", "names no file of train"),
        ("generator=", "generatr=", "ValidationError"),
        ("json.dumps(manifest.model_dump())", "'{}'", "parameters is missing"),
        ("sha256(file.read_bytes())", "sha256(b'')", "does not have the content"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_judged_are_refused_before_a_run(
    mine: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    edit(mine / "toy_data.py", old, new)
    found = prepare(tmp_path)
    assert said in found


def test_what_it_prints_is_no_part_of_the_answer(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    edit(mine / "toy_data.py", "    rng = ", "    print('hello')\n    rng = ")
    done = call("prepare", "mine", "--profile", "test", "--json")
    assert done.json["task"] == "mine"
    assert "hello" in done.stderr


def test_a_setting_that_the_runner_reads_is_missed_before_the_run(
    mine: Path, tmp_path: Path
) -> None:
    edit(mine / "task.toml", "steps = 20", "step = 20")
    found = prepare(tmp_path)
    place = line(mine / "task.toml", "settings = { batch_size = 64, step = 20 }")
    assert f"task.toml, line {place}: settings of profile test has no steps" in found
    assert f"runner.py, line {line(mine / 'runner.py', '        for step in')} reads it" in found
    assert "is it 'step'" in found
    assert find_task("mine").prepare("quick", tmp_path, lambda *_: None)


def test_a_language_model_needs_what_its_judge_reads(mine: Path, tmp_path: Path) -> None:
    edit(mine / "task.toml", '"classification"', '"language_modeling"')
    edit(mine / "task.toml", '"accuracy"', '"bits_per_byte"')
    edit(mine / "task.toml", '"maximize"', '"minimize"')
    assert "settings of profile test has no max_batch" in prepare(tmp_path)
    edit(mine / "task.toml", "batch_size = 64", "max_batch = 64")
    assert "judge of profile test has no audit_rows" in prepare(tmp_path)


def test_settings_with_defaults_are_not_asked_for(tmp_path: Path) -> None:
    runner = tmp_path / "runner.py"

    def needs(text: str) -> set[str]:
        runner.write_text(text)
        return set(settings_read([runner]))

    assert needs("settings['a'] + config['settings']['b'] + self.settings['c']") == set("abc")
    assert needs("{k: settings[k] for k in ('a', 'b')}") == set("ab")
    assert needs("if settings['a']:\n  settings['b']\nelif settings['c']:\n  pass") == set("ac")
    assert needs("settings.get('a', 1); settings['a']") == set()
    assert needs("if 'a' in settings:\n  pass\nsettings['a']") == set()
    assert needs("try:\n  settings['a']\nexcept KeyError:\n  pass") == set()
    assert needs("settings = {**DEFAULTS, **config['settings']}\nsettings['a']") == set()
    assert needs("settings, x = config['settings'], 1\nsettings['a']") == {"a"}


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("runner.py", "def main(:\n", "runner.py cannot be parsed.\nCause: line 1"),
        ("designs/half.py", '"""Half."""\nx = (\n', "half.py cannot be parsed.\nCause: line 2"),
        ("designs/half.py", "x = 1\n", "has no design half"),
        ("description.md", "<!-- include description.md -->\n", "includes itself"),
        ("description.md", "<!-- include nowhere.md -->\n", "nowhere.md cannot be read"),
        ("description.md", "<!-- configurable -->\n", "without a <!-- /configurable -->"),
    ],
)
def test_files_that_a_task_names_are_read_before_a_run(
    mine: Path, tmp_path: Path, file: str, text: str, said: str
) -> None:
    (mine / file).write_text(text)
    assert said in prepare(tmp_path)
    (mine / file).unlink()
    assert Path(file).name in prepare(tmp_path)


def test_every_task_of_ours_passes_its_own_check() -> None:
    for task in all_tasks().values():
        for profile in task.definition.profiles:
            task.check(profile)


def test_check_tries_the_first_design(mine: Path, isolating: object) -> None:
    os.environ.pop("HARNESS_TASKS_DIR")
    assert "mine, profile test, design half: 0." in call("tasks", "check", mine.parent).said
    edit(mine / "runner.py", "    try:\n", "    try:\n        config['nothing']\n")
    (checked,) = call("tasks", "check", mine, "--json", code=1).json["tasks"]
    assert "'nothing'" in checked["message"]
    assert "There is no task.toml" in complaint("tasks", "check", mine / "designs")
