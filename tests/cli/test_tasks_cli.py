"""Tests of ``harness tasks``, and of the task of docs/guides/tasks-own.md."""

import re
from pathlib import Path

import pytest
from calling import call
from pages import DOCS, numbered_files

PAGE = DOCS / "guides" / "tasks-own.md"


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the page shows."""
    monkeypatch.delenv("HARNESS_TASKS_DIR")
    for name, text in numbered_files(PAGE.read_text()).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_twelve_and_their_stand_ins_are_listed_with_chance_and_shortcut(tmp_path: Path) -> None:
    rows = call("tasks", "--json", cwd=tmp_path).json["tasks"]
    found = {row["name"]: row for row in rows}
    six = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")
    for name in six:
        for variant in ("fixed", "configurable"):
            row = found[f"lra/{name}" + ("-configurable" if variant == "configurable" else "")]
            assert row["variant"] == variant
            assert row["chance"] == (0.1 if name in ("listops", "image") else 0.5)
    assert {s["value"] for s in found["lra/listops"]["shortcuts"]} == {0.175, 0.38}
    assert found["lra/image-fashion"]["stands_in_for"] == "lra/image"
    text = call("tasks", cwd=tmp_path).stdout
    assert re.search(r"lra/listops +0\.10 +0\.38 +first token alone", text)
    assert all(len(line) <= 120 for line in text.splitlines())


def test_show_says_what_a_guess_scores_and_what_an_agent_is_told(tmp_path: Path) -> None:
    text = call("tasks", "show", "lra/text", cwd=tmp_path).stdout
    assert "0.5000  chance" in text
    assert "0.9053  human SOTA" in text
    assert "NOT IMDb" in text
    told = call("tasks", "show", "lra/text-configurable", "--profile", "smoke", cwd=tmp_path)
    assert "class CustomEncoder(torch.nn.Module)" in told.stdout
    assert "HYPERPARAMETERS" in told.stdout
    whole = call("tasks", "show", "lra/pathx", "--json", cwd=tmp_path).json
    assert whole["profiles"]["paper"]["limits"]["max_parameters"] == 595_000


def test_an_unknown_task_names_the_nearest(tmp_path: Path) -> None:
    done = call("tasks", "show", "lra/imaeg", cwd=tmp_path, code=2)
    assert "'lra/image'" in done.stderr
    assert "--tasks-dir" in done.stderr
    call("tasks", "--tasks-dir", "nowhere", cwd=tmp_path, code=2)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_task_from_outside_goes_the_whole_way(outside: Path) -> None:
    """Call every command of the page, from a folder outside the repository."""
    (commands,) = re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    said = []
    for line in commands.splitlines():
        said.append(call(*line.removeprefix("$ harness ").split(), cwd=outside).stdout)
    tried, listed, shown, prepared, scored, ran = said
    assert "last-mark, profile test, design softmax: 0." in tried
    assert "last-mark-configurable" in listed
    assert "0.4200  the commonest mark" in shown
    assert "64 rows" in prepared
    assert re.search(r"commonest_test +0\.[345]", prepared)
    assert "accuracy 0." in scored
    assert "on the hidden test split" in ran
    without = call("tasks", "show", "last-mark", cwd=outside, code=2)
    assert "--tasks-dir" in without.stderr


def test_mistakes_in_a_task_of_ones_own_are_named(outside: Path) -> None:
    toml = outside / "last-mark" / "task.toml"
    good = toml.read_text()

    def complaint(old: str, new: str, *args: str) -> str:
        assert old in good
        toml.write_text(good.replace(old, new))
        done = call(*args, "--tasks-dir", ".", cwd=outside, code=2)
        return str(done.stderr)

    show = ("tasks", "show", "last-mark")
    assert str(toml) in complaint('kind = "classification"', 'kind = "poetry"', *show)
    assert "bagg.py" in complaint('"bag"]', '"bagg"]', *show)
    assert "lar/shell.py" in complaint("harness:lra/shell.py", "harness:lar/shell.py", *show)
    taken = complaint('name = "last-mark"', 'name = "lra/text"', "tasks", "show", "lra/text")
    assert "Two tasks are called lra/text" in taken
    prepare = ("prepare", "last-mark", "--profile", "test")
    assert "dota.py" in complaint('module = "data"', 'module = "dota"', *prepare)
    module = outside / "last-mark" / "data.py"
    text = module.read_text()
    module.write_text("import nothing_that_is_there\n")
    assert "nothing_that_is_there" in complaint("format = 1", "format = 1", *prepare)
    module.write_text(text)
    wrong = complaint("length = 12", 'length = "long"', *prepare)
    assert "data table of last-mark, profile test" in wrong
