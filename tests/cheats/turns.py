"""Which of a corpus runs when."""

from collections.abc import Collection

import pytest


def by_turns(names: Collection[str], in_ci: Collection[str]):
    """Return the names as parameters: the representatives, and those that wait for the night.

    Raises ValueError where a representative is no name.
    """
    if unknown := set(in_ci) - set(names):
        raise ValueError(f"there is no {unknown}")
    marks = (pytest.mark.slow if name in in_ci else pytest.mark.nightly for name in names)
    return [pytest.param(name, marks=mark) for name, mark in zip(names, marks, strict=True)]
