"""No sandbox, for submissions that are data: nothing of them runs, so nothing is to be isolated."""

from harness.base.errors import SandboxStartError
from sandboxes.base import Probe, Sandbox, SandboxSpec


class NoSandbox:
    """What stands for the sandbox of a task whose kind runs no code. It is never chosen by name."""

    name = "none"
    isolates = True
    image = ""

    def probe(self) -> Probe:
        """Return that no program can be run here."""
        return Probe(False, "it runs nothing")

    def unenforced(self, spec: SandboxSpec) -> tuple[str, ...]:
        """Return no limits: there is no code to limit."""
        return ()

    def open(self, spec: SandboxSpec) -> Sandbox:
        """Raise SandboxStartError: no code of a submission may be run."""
        raise SandboxStartError("A submission that is no program was to be run.")

    def sweep(self) -> tuple[str, ...]:
        """Return nothing: it leaves nothing behind."""
        return ()


NO_SANDBOX = NoSandbox()
