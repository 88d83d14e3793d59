"""What tests of several rooms share: the toy tasks, how to wait, an observer that says nothing."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

TOYS = Path(__file__).parent / "toys"
PATIENCE_S = 120.0
"""Longer than anything here takes on the busiest machine: a wait this long is a failure."""


def until(happened: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Call ``happened`` until its result is true; fail if that takes longer than ``patience_s``.

    Return that result: another call may return something else.
    """
    end = time.monotonic() + patience_s
    while not (seen := happened()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)
    return seen


def quiet(*_: object) -> None:
    """Take progress or an event, and say nothing."""
