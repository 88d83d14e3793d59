"""Tests of the exit codes of errors, unforeseen ones included, and of how durations are read."""

import re
from pathlib import Path

import pytest
import typer

from harness.base import errors
from harness.base.durations import parse_duration, show_duration
from harness.cli.common import guarded


def outcome(error: BaseException) -> int:
    @guarded
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        command()
    return caught.value.exit_code


def test_an_unforeseen_error_exits_70_and_names_a_crash_file_with_the_traceback(capsys):
    assert outcome(ZeroDivisionError("oops")) == 70
    said = capsys.readouterr().err
    crash = Path(re.search(r"/\S+\.txt", said)[0])
    assert "ZeroDivisionError" in crash.read_text()
    assert "most recent call last" not in said
    crash.unlink()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("a"), 2),
        (errors.SandboxLostError("a"), 3),
        (errors.JudgeError("a"), 3),
        (errors.ProviderError("a"), 4),
        (errors.Cancelled("a"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_kind_of_error_has_its_documented_exit_code(error, code):
    assert outcome(error) == code


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("24h", 86400), ("2d", 172800)]
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1h", "1w", "h", "1 h 3"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(errors.ConfigError, match="not a duration"):
        parse_duration(text)


def test_durations_are_shown():
    assert [show_duration(s) for s in (0, 61, 3661)] == ["0:00", "1:01", "1:01:01"]
