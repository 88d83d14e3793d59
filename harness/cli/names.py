"""Options whose value is a registered name: --sandbox, --executor."""

from collections.abc import Sequence
from typing import Any

import typer

from harness.search.executors import EXECUTORS as KNOWN
from sandboxes.registry import AUTO, BACKENDS

SANDBOXES = [AUTO, *BACKENDS.names()]
EXECUTORS = KNOWN.names()


def one_of(names: Sequence[str], *, help: str) -> Any:  # noqa: ANN401 (as in typer)
    """Return a Typer option that accepts one of ``names``."""

    def chosen(name: str) -> str:
        if name not in names:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, names))}.")
        return name

    return typer.Option(metavar=f"<{'|'.join(names)}>", parser=chosen, help=help)
