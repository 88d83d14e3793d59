"""Errors in any file of values have one form: the place, what was found, what is wanted."""

import json
from pathlib import Path

import pytest

from harness.agents.catalogue import load_agents
from harness.base.errors import ConfigError
from harness.base.validation import line_numbers
from harness.core.asked import Asked
from harness.store.reading import read_as
from harness.sweeps.suite import load
from scorers.score import Score

GROUP = '[[groups]]\nagents = ["reference"]\ntasks = ["toy"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('seeds = "two"', "line 6, groups.0.seeds is 'two'; wanted: a valid integer, unable to"),
        ('sedes = 2', "line 6, groups.0.sedes is unknown; did you mean 'seeds' (one of: agents, "),
        ("hours = -1", "line 6, groups.0.hours is -1; wanted: greater than 0"),
        (GROUP + "hours = 0", "line 9, groups.1.hours is 0; wanted: greater than 0"),
        ("[servers.a]\nport = 1", "line 6, servers.a.base_url is missing"),
    ],
)  # fmt: skip
def test_a_suite_is_told_by_line_and_by_nothing_twice(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "suite.toml"
    file.write_text(f'format = 1\nname = "mine"\n{GROUP}{text}\n')
    with pytest.raises(ConfigError) as error:
        load(file)
    assert said in error.value.cause
    assert "after validation" not in error.value.cause
    assert "pydantic" not in str(error.value)


def test_a_table_of_agents_keeps_its_values_to_itself(tmp_path: Path) -> None:
    file = tmp_path / "agents.toml"
    file.write_text('format = 1\n[agents.mine]\nprovider = "sk-secret-1"\nmodle = "sk-secret-2"\n')
    with pytest.raises(ConfigError) as error:
        load_agents(file)
    assert "modle is unknown; did you mean 'model'" in str(error.value)
    assert "sk-secret" not in str(error.value)


def test_a_damaged_record_is_no_bug_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "score.json"
    file.write_text('{"format": 1, "valid": "perhaps"}')
    with pytest.raises(ConfigError) as error:
        read_as(Score, file)
    assert error.value.message == f"{file} is damaged."
    assert "valid is 'perhaps'; wanted: a valid boolean" in error.value.cause
    file.write_text(json.dumps({"format": 1, "\x1b[31m" + "x" * 999: 1}))
    with pytest.raises(ConfigError) as error:
        read_as(Asked, file)
    assert "\x1b" not in error.value.cause
    assert len(error.value.cause) < 999
    file.write_text("[1]")
    with pytest.raises(ConfigError, match="holds no JSON object"):
        read_as(Asked, file)


def test_lines_are_those_of_keys_and_tables() -> None:
    text = 'a = 1\n# b = 2\n[t."x y".z]\nb.c = 2\n  [[list]]\nd = """\n"""\n[[list]] # 2\n"e f" = 3'
    assert line_numbers(text) == {
        ("a",): 1,
        ("t", "x y", "z"): 3,
        ("t", "x y", "z", "b", "c"): 4,
        ("list", 0): 5,
        ("list", 0, "d"): 6,
        ("list", 1): 8,
        ("list", 1, "e f"): 9,
    }
