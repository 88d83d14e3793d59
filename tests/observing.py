"""Observers of runs, and how tests wait for what they observe."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 120.0
"""Longer than anything here takes on the busiest machine: a wait this long is a failure."""


def quiet(*_: object) -> None:
    """Ignore what is observed."""


def interrupting(what: str, label: str | None = None) -> Callable[..., None]:
    """Return an observer that presses Ctrl-C at ``what``: of the job ``label``, or of any."""

    def observe(seen: str, of: str, _: dict) -> None:
        if seen == what and label in (None, of):
            raise KeyboardInterrupt

    return observe


def until(happened: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Call ``happened`` until its result is true; fail if that takes longer than ``patience_s``.

    Return that result: another call may return something else.
    """
    end = time.monotonic() + patience_s
    while not (seen := happened()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)
    return seen
