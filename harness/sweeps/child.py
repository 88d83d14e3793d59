"""A run as a child process: a crash harms no other run, and its memory is freed when it ends.

A child ends with the sweep, however the sweep ends: the kernel sends it SIGTERM, which a run
treats like Ctrl-C. It has a process group of its own, so that Ctrl-C at the terminal reaches only
the sweep, which then interrupts its children (``harness.sweeps.sweep``).
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness.base.text import clean

_PR_SET_PDEATHSIG = 1
_TAIL = 16 << 10


class RunProcess:
    """A started process; its standard error is appended to the file ``log``."""

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            out.write(f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} {' '.join(argv)}\n".encode())
            out.flush()
            self._begin = out.tell()
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=out,
                process_group=0,
                preexec_fn=_tie(os.getpid()),
            )

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        return self._popen.poll()

    def send(self, sent: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        self._popen.send_signal(sent)

    def last_words(self) -> str:
        """Return the last error it printed, or else its last line; cleaned, on one line."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(self._begin, file.seek(0, os.SEEK_END) - _TAIL))
                lines = clean(file.read(_TAIL).decode(errors="replace"), _TAIL).splitlines()
        except OSError as error:  # somebody removed the log; the run is not affected
            return f"its log cannot be read: {error.strerror}"
        begins = [n for n, line in enumerate(lines) if line.startswith("error: ")]
        said = lines[begins[-1] :] if begins else lines[-1:]
        return " ".join(" ".join(said).removeprefix("error: ").split())


def _tie(parent: int) -> Callable[[], None]:
    """Return what the child calls between fork and exec. It must not import or allocate."""
    prctl = ctypes.CDLL(None).prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent has died already, so no signal will come
            os._exit(1)
        # A shell makes its background processes ignore SIGINT, and their children inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return tie
