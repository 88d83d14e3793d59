"""Limits the calls under way at once to one server, over all threads of this process only."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.base.errors import Cancelled

POLL_S = 0.1


class Gate:
    """Counts the calls to one server; a pause that the server asked for holds for all callers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed_until = 0.0

    @contextmanager
    def inside(
        self, most: int, *, say: Callable[[str], None], cancel: threading.Event
    ) -> Iterator[None]:
        """Hold one of ``most`` places; wait until one is free. Raises Cancelled while waiting."""
        said = False
        with self._changed:
            while self._inside >= most or time.monotonic() < self._closed_until:
                if cancel.is_set():
                    raise Cancelled("Cancelled while waiting for a free connection.")
                if not said and self._inside >= most:
                    said = True
                    say(f"{self._inside} calls are under way, waiting for one to end")
                self._changed.wait(POLL_S)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify()

    def pause(self, seconds: float) -> None:
        """Let no new call start for so many seconds."""
        with self._changed:
            self._closed_until = max(self._closed_until, time.monotonic() + seconds)


_gates: dict[str, Gate] = {}
_lock = threading.Lock()


def gate_of(server: str) -> Gate:
    """Return the one gate of a server in this process."""
    with _lock:
        return _gates.setdefault(server, Gate())
