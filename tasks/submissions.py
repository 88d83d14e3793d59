"""Sorts of submission by name: how an answer becomes files, and how the files are checked.

Which files a task wants stands in its ``task.toml``. A new sort is an entry here, or one that a
package adds (docs/guides/extending.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.base.registry import Registry, is_no

Parse = Callable[[str, Sequence[str]], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Submission:
    """A sort of submission.

    ``check`` is the address, ``module:function``, of what the judge says of its text before any of
    it runs: see ``scorers.submission``. ``prints``: it tells of its training by what it prints, and
    not by frames. ``parse`` makes the wanted files of a model's answer, and raises ValueError with
    what is to be told to the model; None where they are blocks that are named after the files.
    """

    check: str
    prints: bool = False
    parse: Parse | None = None


SUBMISSIONS: Registry[Submission] = Registry(
    "sort of submission",
    "harness.submissions",
    {
        "program": Submission("scorers.submission:check_program", prints=True),
        "mechanism": Submission("scorers.submission:check_mechanism"),
    },
    lambda _name, submission: is_no(Submission, submission),
)
