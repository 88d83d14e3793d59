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
    return BACKENDS.ours["process"]


@pytest.fixture(scope="session")
def mechanisms(tmp_path_factory):
    """Benches of lra/listops at the ``test`` profile, by backend."""
    pytest.importorskip("torch")
    from cheats.corpus import Bench

    made: dict[str, Bench] = {}

    def bench(backend):
        if backend.name not in made:
            made[backend.name] = Bench(
                tmp_path_factory.mktemp("listops"),
                backend,
                task="lra/listops",
                settings={"steps": 60, "learning_rate": 5e-3},
            )
        return made[backend.name]

    return bench
