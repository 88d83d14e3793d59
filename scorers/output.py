"""What a submission prints: kept within bounds, and searched for progress and a final summary.

``text`` and ``summary`` return it as printed; ``last_lines`` is cleaned for display.
"""

import re
import threading
from typing import Any

from harness.base.text import clean
from sandboxes.base import StreamName
from sandboxes.running import Tail

LOG_BYTES = 1 << 20
"""Bytes of a submission's output that are kept from its beginning, and as many from its end."""

LINE_BYTES = 2048
"""Bytes at the end of the output that are searched for a line on the training."""

STEP = re.compile(r"\bstep\W{1,3}(\d{1,9})(?:/(\d{1,9}))?\b", re.IGNORECASE)
LOSS = re.compile(r"\bloss\W{1,3}(\d{1,9}(?:\.\d{1,9})?)\b", re.IGNORECASE)
PERCENT = re.compile(r"\b(\d{1,3}(?:\.\d{1,4})?) ?%")


class Output:
    """Keeps the head and the tail of what a submission prints, in bounded memory."""

    def __init__(self) -> None:
        self.total = 0
        self._head = bytearray()
        self._tail = Tail(LOG_BYTES)
        self._lock = threading.Lock()

    def feed(self, _stream: StreamName, chunk: bytes) -> None:
        """Add one chunk of stdout or stderr."""
        with self._lock:
            self.total += len(chunk)
            room = LOG_BYTES - len(self._head)
            self._head += chunk[:room]
            self._tail.add(chunk[room:])

    def text(self) -> bytes:
        """Return head and tail, with a line that says how many bytes are missing between them."""
        cut = self._tail.dropped()
        middle = f"\n… {cut:,} bytes left out …\n".encode() if cut else b""
        return bytes(self._head) + middle + self._tail.kept()

    def summary(self) -> dict[str, str]:
        """Return the ``name: value`` lines after the last ``---``, which Autoresearch prints."""
        text = self._end().decode(errors="replace")
        _, mark, rest = f"\n{text}".rpartition("\n---\n")
        pairs = (line.partition(":") for line in rest.splitlines()[:32]) if mark else ()
        return {name.strip(): value.strip() for name, colon, value in pairs if colon}

    def progress(self) -> dict[str, Any] | None:
        """Return the training progress from the last printed line that names a step.

        ``step 00012 (3.4%) | loss: 5.123`` gives step, total (0: not printed), loss or None, and
        the share that is done. None without such a line. It is a claim and is only displayed.
        """
        with self._lock:
            end = self._end()[-LINE_BYTES:]
        for line in reversed(re.split(r"[\r\n]+", end.decode(errors="replace"))):
            if match := STEP.search(line):
                step, total = int(match[1]), int(match[2] or 0)
                loss, percent = LOSS.search(line), PERCENT.search(line)
                share = step / total if step <= total != 0 else 0.0
                return {
                    "step": step,
                    "total": total if step <= total else 0,
                    "loss": float(loss[1]) if loss else None,
                    "share": min(1.0, float(percent[1]) / 100) if percent else share,
                }
        return None

    def last_lines(self) -> str:
        """Return the last twelve lines, cleaned."""
        text = self._end().decode(errors="replace")
        return clean("\n".join(text.splitlines()[-12:]))

    def _end(self) -> bytes:
        return self._tail.kept() or bytes(self._head)
