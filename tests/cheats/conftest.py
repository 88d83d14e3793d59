"""One bench for all cheats: the data are prepared once, and no text is scored twice."""

import pytest

from sandboxes.registry import BACKENDS

_benches = {}
"""By backend, for as long as the tests run."""


@pytest.fixture
def bench(isolating, tmp_path_factory):
    """A Bench at the ``test`` profile in the isolating sandbox."""
    pytest.importorskip("torch")
    pytest.importorskip("rustbpe", reason="pip install 'aira-harness[autoresearch]'")
    from cheats.corpus import Bench

    if isolating.name not in _benches:
        base = tmp_path_factory.getbasetemp()
        _benches[isolating.name] = Bench(base / "autoresearch", isolating, log=base / "log")
    return _benches[isolating.name]


@pytest.fixture
def unisolated():
    """The backend that walls nothing off: it shows what a wall is for."""
    return BACKENDS["process"]
