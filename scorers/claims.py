"""What a submission says of itself, as it is kept: its words in our record, and no more."""

from typing import Any

from harness.base.text import clean
from scorers.judge import Verdict
from scorers.output import Output
from tasks.submissions import Submission

MOST = 32
"""Claims that are kept."""

JUDGES_OWN = ("device_buffer", "frozen")
"""Parts of a claim that are told to the judge, and mean nothing to a reader."""


def kept(submission: Submission, verdict: Verdict | None, output: Output) -> dict[str, Any]:
    """Return what it said to the judge and on its last lines: plain values, cleaned."""
    told = verdict.claim if verdict else {}
    told = {name: value for name, value in told.items() if name not in JUDGES_OWN}
    if submission.prints:
        told |= output.summary()
    return {_line(name, 64): _plain(value) for name, value in list(told.items())[:MOST]}


def _plain(value: object) -> object:
    if isinstance(value, int | float | bool) or value is None:
        return value
    return _line(value, 200)


def _line(said: object, limit: int) -> str:
    """Return what was said as one line: two could look like a line of ours."""
    return " ".join(clean(str(said), limit).split())
