"""How many calls may be under way at once to one server, over all threads of this process."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.base.errors import Cancelled

POLL_S = 0.1


class Gate:
    """Counts calls; a server that asked for a pause gets it from all callers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed_until = 0.0

    @contextmanager
    def inside(
        self, most: int, *, say: Callable[[str], None], cancel: threading.Event
    ) -> Iterator[None]:
        """Be one of at most so many. Raises Cancelled while waiting."""
        told = False
        with self._changed:
            while self._inside >= most or time.monotonic() < self._closed_until:
                if cancel.is_set():
                    raise Cancelled("Cancelled while waiting for a free connection.")
                if not told and self._inside >= most:
                    told = True
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
        """Let nobody in for so long."""
        with self._changed:
            self._closed_until = max(self._closed_until, time.monotonic() + seconds)


_gates: dict[str, Gate] = {}
_lock = threading.Lock()


def gate_of(server: str) -> Gate:
    """Return the one gate of a server in this process."""
    with _lock:
        return _gates.setdefault(server, Gate())
