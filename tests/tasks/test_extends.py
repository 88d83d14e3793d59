"""Tests what a ``task.toml`` takes over from the file that it extends, and how errors name both."""

import json
from pathlib import Path

import pytest
from test_own_tasks import line
from toy_task import copy_toy

from harness.base.errors import ConfigError
from tasks.reading import read_definition
from tasks.spec import find_task

OWN = """extends = "../toy/task.toml"
name = "mine"
title = "Mine"
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task that takes over all of the toy beside it, but for name and title."""
    copy_toy(tmp_path / "toy")
    toml = copy_toy(tmp_path / "mine") / "task.toml"
    toml.write_text(OWN)
    monkeypatch.setenv("HARNESS_TASKS_DIR", str(tmp_path))
    return toml


def complaint(file: Path) -> str:
    with pytest.raises(ConfigError) as error:
        read_definition(file)
    return str(error.value)


def test_what_a_file_does_not_say_is_taken_over(mine: Path) -> None:
    toy, own = find_task("toy").definition, find_task("mine").definition
    assert own.model_dump() == toy.model_dump() | {"name": "mine", "title": "Mine"}


def test_a_profile_takes_over_key_by_key_and_its_settings_are_replaced_whole(mine: Path) -> None:
    toy = find_task("toy").profile("test")
    mine.write_text(f"{OWN}\n[profiles.test]\nsearch_steps = 9\nsettings = {{ steps = 3 }}\n")
    own = find_task("mine").profile("test")
    assert own.settings == {"steps": 3}
    assert own.model_dump() == toy.model_dump() | {"search_steps": 9, "settings": {"steps": 3}}
    assert find_task("mine").profile("quick") == find_task("toy").profile("quick")


def test_a_list_is_replaced_and_may_be_empty(mine: Path) -> None:
    assert find_task("toy").definition.designs
    mine.write_text(f"{OWN}designs = []\n")
    assert find_task("mine").definition.designs == ()


def test_of_several_files_the_last_has_the_last_word(mine: Path) -> None:
    toy = find_task("toy").profile("test")
    parts = {
        "a": 'extends = "../toy/task.toml"\ntitle = "A"\n[profiles.test]\nsearch_steps = 7\n',
        "b": 'extends = "../toy/task.toml"\ntitle = "B"\n[profiles.test]\nabout = "b"\n',
        "c": "[profiles.test]\nranked = true\n",
    }
    for name, text in parts.items():
        (mine.parent / f"{name}.toml").write_text(text)
    mine.write_text('extends = ["a.toml", "b.toml", "c.toml"]\nname = "mine"\n')
    own = find_task("mine")
    assert own.definition.title == "B"
    # Both extend the toy: what one changes of it, the other does not change back.
    assert own.profile("test") == toy.model_copy(
        update={"search_steps": 7, "about": "b", "ranked": True}
    )
    mine.write_text('extends = []\nname = "mine"\n')
    assert "title is missing" in complaint(mine)
    mine.write_text('extends = ["a.toml", "nowhere.toml"]\nname = "mine"\n')
    assert "nowhere.toml" in complaint(mine)


def test_a_new_bound_comes_first_and_the_others_keep_their_places() -> None:
    # The order is part of a task's hash, and of what an agent reads.
    bounds = find_task("lra/text").definition.bounds
    image = find_task("lra/image").definition.bounds
    assert list(bounds) == ["seq_len", *image]
    assert (bounds["steps"].high, image["steps"].high) == (30_000, 50_000)


def test_a_task_from_outside_may_extend_ours(mine: Path) -> None:
    mine.write_text('extends = "harness:lra/pathx_gen/task.toml"\nname = "mine"\ntitle = "Mine"\n')
    ours, own = find_task("lra/pathx-gen"), find_task("mine")
    assert own.profile("smoke") == ours.profile("smoke")
    assert own.runner_files() == ours.runner_files()


def test_a_mistake_is_told_with_the_file_that_has_it(mine: Path) -> None:
    toy = mine.parent.parent / "toy" / "task.toml"
    toy.write_text(toy.read_text().replace("search_steps = 2", 'search_steps = "two"'))
    number = line(toy, 'search_steps = "two"')
    said = complaint(mine)
    assert said.startswith(f"{mine} is not a valid task definition.")
    assert f"{toy}, line {number}, profiles.quick.search_steps is 'two'" in said
    # What the file itself says goes before, and is not looked for in the other.
    mine.write_text(f'{OWN}\n[profiles.quick]\nsearch_steps = "nine"\n')
    said = complaint(mine)
    assert "line 6, profiles.quick.search_steps is 'nine'" in said
    assert str(toy) not in said


def test_a_missing_setting_is_told_with_the_file_that_has_the_settings(mine: Path) -> None:
    toy = mine.parent.parent / "toy" / "task.toml"
    toy.write_text(toy.read_text().replace("steps = 20", "step = 20"))
    number = line(toy, "settings = { batch_size = 64, step = 20 }")
    with pytest.raises(ConfigError) as error:
        find_task("mine").check("test")
    said = str(error.value)
    assert f"{toy}, line {number}: settings of profile test has no steps" in said


@pytest.mark.parametrize(
    ("extends", "wanted"),
    [
        ('"../nowhere.toml"', "No such file or directory"),
        ('"task.toml"', "extends itself"),
        ('"../third/task.toml"', "extends itself"),
        ('".."', "Is a directory"),
        ('"broken.toml"', "Invalid value (at"),
        ('"circle.toml"', "Too many levels of symbolic links"),
        ("3", "No such file or directory"),
        ('["a"]', "No such file or directory"),
        ('"a\\u0000b"', "null"),
    ],
)
def test_what_cannot_be_extended_is_told(mine: Path, extends: str, wanted: str) -> None:
    third = mine.parent.parent / "third" / "task.toml"
    third.parent.mkdir()
    third.write_text('extends = "../mine/task.toml"\nname = "third"\n')
    (mine.parent / "broken.toml").write_text("name = ")
    (mine.parent / "circle.toml").symlink_to("round.toml")
    (mine.parent / "round.toml").symlink_to("circle.toml")
    mine.write_text(OWN.replace('"../toy/task.toml"', extends))
    said = complaint(mine)
    assert wanted in said
    assert str(mine) in said
    with pytest.raises(ConfigError, match=str(mine)):  # by its name as well
        find_task("mine")
    assert find_task("toy")


def test_a_chain_may_be_longer_than_python_calls_can_be_deep(mine: Path) -> None:
    for number in range(2000):
        file = mine.parent / f"{number}.toml"
        file.write_text(f'extends = "{number + 1}.toml"\n')
    mine.write_text(OWN.replace("../toy/task.toml", "0.toml"))
    said = complaint(mine)
    assert f"2000.toml'; {mine.parent / '1999.toml'} extends it" in said
    (mine.parent / "2000.toml").write_text('extends = "../toy/task.toml"\n')
    assert find_task("mine").definition.profiles == find_task("toy").definition.profiles


@pytest.mark.parametrize("file", ["task.toml", "description.md", "runner.py"])
def test_links_in_a_circle_break_one_task_and_no_other(mine: Path, file: str) -> None:
    (mine.parent / "round").symlink_to(file)
    (mine.parent / file).unlink()
    (mine.parent / file).symlink_to("round")
    with pytest.raises(ConfigError, match=file):
        find_task("mine").check("test")
    assert find_task("toy").check("test") is None


@pytest.mark.parametrize("kind", ["include", "runner"])
def test_links_in_a_circle_that_a_task_names_are_told(mine: Path, kind: str) -> None:
    (mine.parent / "a.md").symlink_to("b.md")
    (mine.parent / "b.md").symlink_to("a.md")
    if kind == "include":
        (mine.parent / "description.md").write_text("<!-- include a.md -->\n")
    else:
        mine.write_text(OWN + 'runner = ["a.md"]\nentry = "a.md"\n')
    with pytest.raises(ConfigError, match="a.md"):
        find_task("mine").check("test")


def test_a_family_says_each_thing_once() -> None:
    """The stand-in differs from the task in data and words alone, so their scores tell of data."""
    ours, other = find_task("lra/image").definition, find_task("lra/image-fashion").definition
    for name, profile in ours.profiles.items():
        twin = other.profiles[name]
        assert (twin.settings, twin.limits) == (profile.settings, profile.limits)
    assert json.dumps(other.model_dump()["bounds"]) == json.dumps(ours.model_dump()["bounds"])
