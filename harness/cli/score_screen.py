"""Shows the progress of a single evaluation on stderr. For whole runs see ``screen``."""

import sys
import time
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from harness.base.durations import show_duration
from harness.base.text import clean
from harness.base.watching import unbreakable
from harness.cli.screen import SAY_EVERY_S
from harness.store.training import Training

_SAID = {
    "waiting": "{message}",
    "warning": "warning: {message}",
    "retry": "our side broke, trying again: {cause}",
}
"""Events that are printed as a line of their own."""


class ScoreScreen:
    """A progress bar on a terminal; elsewhere one line per phase."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._began = self._said = time.monotonic()
        self._training: Training | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        self._task = self._bar.add_task("preparing", total=None, note="")
        return self

    def __exit__(self, *_: object) -> None:
        unbreakable(self._bar.stop)()

    def say(self, text: str) -> None:
        """Print a line."""
        sys.stderr.write(text + "\n")

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far the data preparation is."""
        self._show(what, done, total or None, "")

    def observe(self, what: str, label: str, details: dict[str, Any]) -> None:
        """Show an event: a phase of the evaluation, or the progress that the submission reports."""
        if what in _SAID:
            self.say(_SAID[what].format(**{k: clean(str(v), 600) for k, v in details.items()}))
            return
        if what == "progress":
            if self._training is not None:
                self._training.take(details)
                self._tell(self._training)
            return
        self._training = Training(details["limit_s"]) if what == "training" else None
        if what == "served":
            self._show("serving", details["done"], details["batches"], "")
            return
        self._show(what, 0, None, "")
        if not self._console.is_terminal:
            self._said = time.monotonic()
            self.say(f"{self._said - self._began:6.1f} s  {what}")

    def _tell(self, training: Training) -> None:
        words = training.claim("").words(show_duration)
        share = training.share
        self._show("training", round(1000 * share), 1000 if share else None, words)
        now = time.monotonic()
        if not self._console.is_terminal and now >= self._said + SAY_EVERY_S:
            self._said = now
            self.say(f"{now - self._began:6.1f} s  {words}")

    def _show(self, what: str, done: int, total: int | None, note: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, description=what, completed=done, total=total, note=note)
