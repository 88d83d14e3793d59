"""Lets the watched work go on where a watcher of it (a screen, a log) fails."""

import contextlib
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec

from harness.base.errors import Cancelled

P = ParamSpec("P")


def unbreakable(*watchers: Callable[P, object]) -> Callable[P, None]:
    """Return a function that calls each watcher and reports the first failure of any on stderr.

    A watcher that failed is called again the next time: it may have failed on one odd value only.
    Ctrl-C and Cancelled still pass, because they are not failures. (rich raises SystemExit where
    the reader of a pipe is gone.)
    """
    warned = False

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        nonlocal warned
        for watch in watchers:
            try:
                watch(*args, **kwargs)
            except Cancelled:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 (no failure of a watcher ends the work)
                if not warned:
                    warned = True
                    _tell(error)

    return call


def _tell(error: Exception | SystemExit) -> None:
    at = traceback.extract_tb(error.__traceback__)[-1]
    with contextlib.suppress(OSError, ValueError):  # stderr may be what broke
        sys.stderr.write(
            "warning: what happens could not be shown or kept, and the work goes on "
            f"({type(error).__name__}: {error}, {at.filename}:{at.lineno})\n"
        )
