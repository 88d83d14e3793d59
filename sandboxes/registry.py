"""The backends by name, and the choice among them."""

from harness.base.errors import ConfigError
from sandboxes.base import Backend
from sandboxes.bubblewrap import Bubblewrap
from sandboxes.docker_engine import Docker
from sandboxes.process import ProcessBackend

BACKENDS: dict[str, Backend] = {
    "docker": Docker(),
    "bubblewrap": Bubblewrap(),
    "process": ProcessBackend(),
}
"""In the order in which ``auto`` tries those that isolate."""


def choose(name: str, trusted: bool) -> tuple[Backend, str | None]:
    """Return the backend to use, and one line of warning or None.

    ``auto`` is the first that isolates and works here. Only code that ships with the
    harness (``trusted``) is then run without isolation, and with a warning: what a model
    wrote never is, unless somebody asks for ``process`` by name. Raises ConfigError.
    """
    if name != "auto":
        backend = BACKENDS.get(name)
        if backend is None:
            raise ConfigError(
                f"No sandbox is called {name!r}", remedy=f"one of: auto, {', '.join(BACKENDS)}"
            )
        probe = backend.probe()
        if not probe.available:
            raise ConfigError(
                f"The sandbox {name!r} cannot be used here",
                cause=probe.detail,
                remedy=probe.remedy,
            )
        return backend, None if backend.isolates else _warning(backend)
    reasons = []
    for backend in BACKENDS.values():
        if backend.isolates:
            probe = backend.probe()
            if probe.available:
                return backend, None
            reasons.append(f"{backend.name}: {probe.detail}")
    cause = "; ".join(reasons)
    if trusted:
        return BACKENDS["process"], f"{_warning(BACKENDS['process'])} ({cause})"
    raise ConfigError(
        "No sandbox that isolates works here, and this code did not ship with the harness",
        cause=cause,
        remedy="apt-get install bubblewrap; with Docker, harness image build; "
        "or --sandbox process, if you trust the code",
    )


def _warning(backend: Backend) -> str:
    return f"sandbox {backend.name!r}: no isolation; scores do not rank beside isolated ones"
