"""Tests what a ``task.toml`` takes over from the file that it extends, and how errors name both."""

import json
import shutil
from pathlib import Path

import pytest

from harness.base.errors import ConfigError
from tasks.reading import read_definition
from tasks.spec import find_task

TOY = Path(__file__).parents[1] / "toys" / "toy"
OWN = """extends = "../toy/task.toml"
name = "mine"
title = "Mine"
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task that takes over all of the toy beside it, but for name and title."""
    shutil.copytree(TOY, tmp_path / "toy")
    shutil.copytree(TOY, tmp_path / "mine")
    (tmp_path / "mine" / "task.toml").write_text(OWN)
    monkeypatch.setenv("HARNESS_TASKS_DIR", str(tmp_path))
    return tmp_path / "mine" / "task.toml"


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
    text = toy.read_text()
    toy.write_text(text.replace("search_steps = 2", 'search_steps = "two"'))
    number = next(i for i, row in enumerate(text.splitlines(), 1) if row == "search_steps = 2")
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
    text = toy.read_text()
    toy.write_text(text.replace("steps = 20", "step = 20"))
    number = next(i for i, row in enumerate(text.splitlines(), 1) if "steps = 20" in row)
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
    mine.write_text(OWN.replace('"../toy/task.toml"', extends))
    said = complaint(mine)
    assert wanted in said
    assert str(mine) in said
    with pytest.raises(ConfigError, match=str(mine)):  # by its name as well
        find_task("mine")
    assert find_task("toy")


def test_a_long_chain_ends_with_an_error(mine: Path) -> None:
    for number in range(2000):
        file = mine.parent / f"{number}.toml"
        file.write_text(f'extends = "{number + 1}.toml"\n')
    mine.write_text(OWN.replace("../toy/task.toml", "0.toml"))
    assert "not a valid task definition" in complaint(mine)


def test_a_family_says_each_thing_once() -> None:
    """The stand-in differs from the task in data and words alone, so their scores tell of data."""
    ours, other = find_task("lra/image").definition, find_task("lra/image-fashion").definition
    for name, profile in ours.profiles.items():
        twin = other.profiles[name]
        assert (twin.settings, twin.limits) == (profile.settings, profile.limits)
    assert json.dumps(other.model_dump()["bounds"]) == json.dumps(ours.model_dump()["bounds"])
