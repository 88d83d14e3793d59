"""What a submission prints: bounded, and cleaned before anybody sees it."""

import re
import threading
from typing import Any

from harness.base.text import clean
from sandboxes.base import Stream

LOG_BYTES = 1 << 20
"""What is kept of a submission's output: this much from its beginning, and as much from its end."""

LINE_BYTES = 2048
"""Of the end of an output, where a line on the training is looked for."""

STEP = re.compile(r"\bstep\W{1,3}(\d{1,9})(?:/(\d{1,9}))?\b", re.IGNORECASE)
LOSS = re.compile(r"\bloss\W{1,3}(\d{1,9}(?:\.\d{1,9})?)\b", re.IGNORECASE)
PERCENT = re.compile(r"\b(\d{1,3}(?:\.\d{1,4})?) ?%")


class Output:
    """Keeps the head and the tail of what a submission prints, in bounded memory."""

    def __init__(self) -> None:
        self.total = 0
        self._head = bytearray()
        self._tail = bytearray()
        self._lock = threading.Lock()

    def feed(self, _stream: Stream, chunk: bytes) -> None:
        """Take one chunk of either stream."""
        with self._lock:
            self.total += len(chunk)
            room = LOG_BYTES - len(self._head)
            self._head += chunk[:room]
            self._tail += chunk[max(room, 0) :][-LOG_BYTES:]
            if len(self._tail) > 2 * LOG_BYTES:
                del self._tail[:-LOG_BYTES]

    def text(self) -> bytes:
        """Return head and tail, with a line that says how much is missing between them."""
        tail = bytes(self._tail[-LOG_BYTES:])
        cut = self.total - len(self._head) - len(tail)
        middle = f"\n… {cut:,} bytes left out …\n".encode() if cut else b""
        return bytes(self._head) + middle + tail

    def summary(self) -> dict[str, str]:
        """Return the ``name: value`` lines after the last ``---``, as Autoresearch scripts end."""
        text = bytes(self._tail[-LOG_BYTES:] or self._head).decode(errors="replace")
        _, mark, rest = f"\n{text}".rpartition("\n---\n")
        pairs = (line.partition(":") for line in rest.splitlines()[:32]) if mark else ()
        return {name.strip(): value.strip() for name, colon, value in pairs if colon}

    def progress(self) -> dict[str, Any] | None:
        """Return what the last line on a step says of the training, as scripts print them.

        ``step 00012 (3.4%) | loss: 5.123``: step, total (0: not told), loss or None, and the
        share that is done. None without such a line. It is a claim, shown and nothing else.
        """
        with self._lock:
            end = bytes((self._tail or self._head)[-LINE_BYTES:])
        for line in reversed(re.split(r"[\r\n]+", end.decode(errors="replace"))):
            if told := STEP.search(line):
                step, total = int(told[1]), int(told[2] or 0)
                loss, percent = LOSS.search(line), PERCENT.search(line)
                share = step / total if step <= total != 0 else 0.0
                return {
                    "step": step,
                    "total": total if step <= total else 0,
                    "loss": float(loss[1]) if loss else None,
                    "share": min(1.0, float(percent[1]) / 100) if percent else share,
                }
        return None

    def last_lines(self, count: int = 12) -> str:
        """Return the last lines, cleaned."""
        text = (bytes(self._tail) or bytes(self._head)).decode(errors="replace")
        return clean("\n".join(text.splitlines()[-count:]))
