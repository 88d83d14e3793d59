"""Whoever watches (a screen, a log) may fail; the work that is watched goes on."""

import contextlib
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec

from harness.base.errors import Cancelled

P = ParamSpec("P")


def unbreakable(*watchers: Callable[P, object]) -> Callable[P, None]:
    """Return a call of each that nothing they raise can end; the first time stderr is told.

    One that failed is called again the next time: one odd thing to show need not end the showing.
    Ctrl-C and Cancelled still pass, for they are no faults. (rich raises SystemExit where the
    reader of a pipe is gone.)
    """
    told = False

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        nonlocal told
        for watch in watchers:
            try:
                watch(*args, **kwargs)
            except Cancelled:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever it is, it is not the work's)
                if not told:
                    told = True
                    _tell(error)

    return call


def _tell(error: Exception | SystemExit) -> None:
    at = traceback.extract_tb(error.__traceback__)[-1]
    with contextlib.suppress(OSError, ValueError):  # stderr may be what broke
        sys.stderr.write(
            "warning: what happens could not be shown or kept, and the work goes on "
            f"({type(error).__name__}: {error}, {at.filename}:{at.lineno})\n"
        )
