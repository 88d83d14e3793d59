"""Types of submission by name: how a response becomes files, and what checks the files.

A task's ``task.toml`` names the files that it wants. A new type is an entry here, or one that a
package adds (docs/guides/extending.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.base.registry import Registry, type_fault
from tasks import architecture

Parse = Callable[[str, Sequence[str]], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Submission:
    """A type of submission.

    ``check`` is the address, ``module:function``, of the judge's check of the text before any of
    it runs: see ``scorers.submission``. ``prints``: it reports its training by what it prints, and
    not by frames. ``parse`` makes the wanted files from a model's response, and raises ValueError
    with a message for the model; None if the files are blocks that are named after them.
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
        "architecture": Submission(
            "scorers.submission:check_architecture", parse=architecture.parse
        ),
    },
    lambda _name, submission: type_fault(Submission, submission),
)
