"""The option --across of the commands that compare scores."""

from typing import Annotated

import typer

from harness.base.errors import ConfigError
from harness.base.validation import did_you_mean
from scorers.score import CONDITIONS

Across = Annotated[
    list[str] | None,
    typer.Option(help="A condition that may differ (hardware, torch, scorer …); repeatable."),
]


def checked_across(names: list[str] | None) -> frozenset[str]:
    """Return the conditions that may differ. Raises ConfigError for an unknown name."""
    for name in names or ():
        if name not in CONDITIONS:
            raise ConfigError(
                f"Scores have no condition {name!r}.", remedy=did_you_mean(name, list(CONDITIONS))
            )
    return frozenset(names or ())
