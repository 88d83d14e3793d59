"""Divides the tests of a corpus between CI and the nightly tests."""

from collections.abc import Collection

import pytest


def by_turns(names: Collection[str], in_ci: Collection[str]):
    """Return the names as test parameters, marked slow if they are in ``in_ci``, nightly if not.

    Raises ValueError if ``in_ci`` has a name that is not among ``names``.
    """
    if unknown := set(in_ci) - set(names):
        raise ValueError(f"there is no {unknown}")
    marks = (pytest.mark.slow if name in in_ci else pytest.mark.nightly for name in names)
    return [pytest.param(name, marks=mark) for name, mark in zip(names, marks, strict=True)]
