"""The claim of a submission: what it reports about itself, cleaned for the record of its score.

A kept claim is not verified and does not change the score.
"""

from typing import Any

from harness.base.text import clean
from scorers.judge import Verdict
from scorers.output import Output
from tasks.submissions import Submission

MOST = 32
"""Number of claimed values that are kept."""

JUDGES_OWN = ("device_buffer", "frozen")
"""Parts of a claim that only the judge needs; they are not kept."""


def kept(submission: Submission, verdict: Verdict | None, output: Output) -> dict[str, Any]:
    """Return the claim that was sent and the summary that was printed, as plain, cleaned values."""
    claimed = verdict.claim if verdict else {}
    claimed = {name: value for name, value in claimed.items() if name not in JUDGES_OWN}
    if submission.prints:
        claimed |= output.summary()
    return {_line(name, 64): _plain(value) for name, value in list(claimed.items())[:MOST]}


def _plain(value: object) -> object:
    if isinstance(value, int | float | bool) or value is None:
        return value
    return _line(value, 200)


def _line(said: object, limit: int) -> str:
    """Return ``said`` as one line: a second line could look like a line of the harness."""
    return " ".join(clean(str(said), limit).split())
