"""The command line: a module a command. It reads options and prints; it does not know the tasks.

The commands are listed in ``app``. No slow import is made here, so that ``harness --help`` answers
at once.
"""

import importlib
import locale
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from harness.cli.edge import run_and_report


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``harness`` command. Raises SystemExit with the exit code."""
    _speak_utf8()
    _have_streams()
    # Imported inside settle: Ctrl-C and errors during the import become messages and exit codes.
    sys.exit(run_and_report(lambda: importlib.import_module("harness.cli.app").app(arguments)))


def _speak_utf8() -> None:
    """Restart in UTF-8 mode if files would otherwise be written in another encoding.

    A run's files are UTF-8 on every machine. Only printed text has the terminal's encoding.
    """
    if locale.getencoding().lower() in ("utf-8", "utf8") or "PYTHONUTF8" in os.environ:
        return
    os.environ["PYTHONUTF8"] = "1"
    os.environ.setdefault("PYTHONIOENCODING", locale.getencoding())
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def _have_streams() -> None:
    """Make sure that the three standard streams exist and that any character can be printed."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: otherwise the next opened file would get this number
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
