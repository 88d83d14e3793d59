"""The command line. Nothing heavy is imported here: ``harness --help`` must answer at once."""

import importlib
import locale
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from harness.cli.edge import settle


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``harness`` command. Raises SystemExit with the exit code."""
    _speak_utf8()
    _have_streams()
    # There, so that Ctrl-C and errors are words and exit codes while it is imported, too.
    sys.exit(settle(lambda: importlib.import_module("harness.cli.app").app(arguments)))


def _speak_utf8() -> None:
    """Begin again in UTF-8 mode where the locale would write files in another encoding.

    A run's files are UTF-8 wherever it is read; only what is printed is the terminal's.
    """
    if locale.getencoding().lower() in ("utf-8", "utf8") or "PYTHONUTF8" in os.environ:
        return
    os.environ["PYTHONUTF8"] = "1"
    os.environ.setdefault("PYTHONIOENCODING", locale.getencoding())
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def _have_streams() -> None:
    """See to it that there are three streams, and that they take any character."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: or else the next file that is opened would be in its place
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
