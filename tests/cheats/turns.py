"""Which of a corpus runs when."""

from collections.abc import Collection

import pytest


def by_turns(names: Collection[str], *, often: Collection[str] = (), in_ci: Collection[str] = ()):
    """Return the names as parameters: the default suite's, CI's, and those that wait for the night.

    ``often`` and ``in_ci`` hold the representatives. Raises ValueError where one is no name.
    """
    unknown = {*often, *in_ci} - set(names)
    if unknown:
        raise ValueError(f"there is no {unknown}")
    marks = {name: pytest.mark.slow for name in in_ci} | dict.fromkeys(often, ())
    return [pytest.param(name, marks=marks.get(name, pytest.mark.nightly)) for name in names]
