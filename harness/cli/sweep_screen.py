"""Shows a live sweep: one table on a terminal, plain lines elsewhere."""

import time
from collections import deque
from contextlib import suppress
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from harness.base.text import clean
from harness.base.watching import unbreakable
from harness.report.watching import lines
from harness.store.follower import LiveRun
from harness.sweeps.sweep import Sweep, SweepRun
from harness.sweeps.words import status_line

EVERY_S = 1.0
SAID = 5
"""The most messages that are shown below the table."""


class SweepScreen:
    """Shows a sweep on stderr. It draws only in ``say`` and ``show``, and starts no thread."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._said: deque[str] = deque(maxlen=SAID)
        self._last = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            unbreakable(self._live.stop)()

    def say(self, line: str) -> None:
        """Show one message."""
        line = " ".join(clean(line, 1000, keep="head").split("\n"))
        self._said.append(line)
        if self._live is None:
            with suppress(OSError):  # a closed terminal must not end the runs
                self._console.print(Text(line), soft_wrap=True)

    def show(self, sweep: Sweep) -> None:
        """Draw the state of the sweep, at most once a second."""
        if self._live is None or time.monotonic() < self._last + EVERY_S:
            return
        self._last = time.monotonic()
        standings = [_standing(slot) for slot in sweep.running]
        size = self._console.size
        text = [status_line(sweep)]
        if standings:
            text += lines(standings, width=size.width, height=size.height - SAID - 3)
        text += self._said
        drawn = Text("\n".join(text), no_wrap=True, overflow="ellipsis")
        with suppress(OSError):
            self._live.update(drawn, refresh=True)


def _standing(slot: SweepRun) -> LiveRun:
    """Return a running child's state; before it has a directory, with its last error or line."""
    if slot.begun:
        return slot.look()
    asked, words = slot.run.asked, slot.child.last_words() if slot.child is not None else ""
    return LiveRun(
        str(slot.path),
        state="running",
        doing=words[:40] or "starting",
        task=asked.task,
        agent=asked.agent,
        policy=asked.policy,
        seed=asked.seed,
    )
