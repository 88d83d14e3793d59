"""The sandbox backends by name, also those of other packages, and the choice among them."""

from harness.base.errors import ConfigError
from harness.base.registry import Registry, name_fault
from sandboxes.base import Backend
from sandboxes.bubblewrap import Bubblewrap
from sandboxes.docker_engine import Docker
from sandboxes.none import NO_SANDBOX
from sandboxes.process import ProcessBackend

AUTO = "auto"
"""The name that lets ``choose`` find the backend."""
PARTS = ("name", "isolates", "image", "probe", "unenforced", "open", "sweep")


def _fault(name: str, backend: object) -> str:
    absent = [part for part in PARTS if not hasattr(backend, part)]
    if absent:
        return f"it has no {', '.join(absent)}; wanted: a sandboxes.base.Backend"
    if name in (AUTO, NO_SANDBOX.name):
        return f"{name} means something else: {AUTO} chooses one of ours, {NO_SANDBOX.name} is none"
    return name_fault(name, backend)


BACKENDS: Registry[Backend] = Registry(
    "sandbox",
    "harness.sandboxes",
    {"docker": Docker(), "bubblewrap": Bubblewrap(), "process": ProcessBackend()},
    _fault,
)
"""``auto`` tries those of our own backends that isolate, in this order."""


def isolates(name: str) -> bool:
    """Return whether the backend of that name isolates; False if it is not installed any more.

    It is true of ``none``, with which no code runs.
    """
    if name == NO_SANDBOX.name:
        return True
    try:
        return BACKENDS.find(name).isolates
    except ConfigError:
        return False


def choose(name: str, trusted: bool) -> tuple[Backend, str | None]:
    """Return the backend to use, and one line of warning or None.

    ``auto`` is the first of our own backends that isolates and works here. If there is none,
    code that ships with the harness (``trusted``) runs without isolation and with a warning.
    Code that a model wrote does not, unless the user asks for ``process`` by name. Raises
    ConfigError if no backend can be used.
    """
    if name != AUTO:
        backend = BACKENDS.find(name)
        probe = backend.probe()
        if not probe.available:
            raise ConfigError(
                f"The sandbox {name!r} cannot be used here",
                cause=probe.detail,
                remedy=probe.remedy,
            )
        return backend, None if backend.isolates else _warning(backend)
    reasons = []
    for backend in BACKENDS.ours.values():
        if backend.isolates:
            probe = backend.probe()
            if probe.available:
                return backend, None
            reasons.append(f"{backend.name}: {probe.detail}")
    cause = "; ".join(reasons)
    if trusted:
        process = BACKENDS.ours["process"]
        return process, f"{_warning(process)} ({cause})"
    raise ConfigError(
        "No sandbox that isolates works here, and this code did not ship with the harness",
        cause=cause,
        remedy="apt-get install bubblewrap; with Docker, harness image build; "
        "or --sandbox process, if you trust the code",
    )


def walls(sandbox: str, *, isolated: bool) -> str:
    """Return in words where submissions ran: the sandbox, and whether it isolates."""
    if sandbox == NO_SANDBOX.name:
        return "none: no code of a submission runs"
    return f"{sandbox}, {'isolated' if isolated else 'NOT ISOLATED'}"


def _warning(backend: Backend) -> str:
    return f"sandbox {backend.name!r}: no isolation; scores do not rank beside isolated ones"
