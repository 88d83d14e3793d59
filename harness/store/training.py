"""How far a training says it is, and how long it has left by our own clock.

Step, total and loss are claims of the submission: they are shown, and used for nothing else. A run
keeps them in a small file while it trains, so that other processes can show them, too.
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from harness.base.files import read_text, write_whole
from harness.store.reading import DAMAGE

FILE = ".training.json"
"""In a run's folder, while it trains. A bundle leaves out all files that begin with a dot."""

EVERY_S = 2.0
"""The fewest seconds between two writes of the file that only report progress."""

SURE_AFTER = 0.05
"""Share of a training after which its speed is used to guess the time left."""

MOST_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class TrainingClaim:
    """What is shown of one training. ``total`` is 0 where it is not known.

    ``left_s`` is the time left, estimated from the speed so far; with ``at_most`` it is the time
    left until the limit.
    """

    node: Annotated[str, Field(max_length=20)]
    step: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=0)]
    loss: Annotated[float | None, Field(allow_inf_nan=False)]
    left_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    at_most: bool

    def words(self, show: Callable[[float], str]) -> str:
        """Return the claim in words; ``show`` puts seconds into words."""
        name = f"node {self.node}: " if self.node.isdigit() else self.node and f"{self.node}: "
        of = f" of {self.total:,}" if self.total else ""
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        return (
            f"{name}step {self.step:,}{of}{loss}, "
            f"{'at most' if self.at_most else 'about'} {show(self.left_s)} left"
        )


@dataclass(slots=True)
class Training:
    """One training, from its start, with its limit in seconds."""

    limit_s: float
    began: float = field(default_factory=time.monotonic)
    step: int = 0
    total: int = 0
    loss: float | None = None
    share: float = 0.0
    """The share that is done, as the submission reports it."""

    def take(self, details: dict[str, Any]) -> None:
        """Take in the details of a ``progress`` report (``scorers.request.Observe``)."""
        self.step, self.total, self.loss = details["step"], details["total"], details["loss"]
        self.share = details.get("share", self.step / self.total if self.total else 0.0)

    def claim(self, node: str) -> TrainingClaim:
        """Return what is to be shown now."""
        spent_s = time.monotonic() - self.began
        left_s, at_most = max(0.0, self.limit_s - spent_s), True
        if self.share > SURE_AFTER:
            guess_s = spent_s * (1 - self.share) / self.share
            left_s, at_most = min(guess_s, left_s), guess_s > left_s
        return TrainingClaim(node, self.step, self.total, self.loss, round(left_s, 1), at_most)


class TrainingFile:
    """Keeps the claims of a run's trainings in its folder, for other processes that show them."""

    def __init__(self, run: Path) -> None:
        self._file = run / FILE
        self._trainings: dict[str, Training] = {}
        self._queued: set[str] = set()
        self._written = 0.0
        self._lock = threading.Lock()
        self.close()  # a file that a killed process left is outdated

    def observe(self, what: str, label: str, details: dict[str, Any]) -> None:
        """Take note of one event; see ``harness.core.jobs.ObserveJobs``."""
        with self._lock:
            if what == "queued":
                self._queued.add(label)
                self._write()
            elif label in self._queued and what != "waiting":
                self._queued.discard(label)
                self._write()
            if what == "training":
                self._trainings[label] = Training(details["limit_s"])
            elif what != "progress":
                if self._trainings.pop(label, None) is not None:
                    self._write()
            elif label in self._trainings:
                self._trainings[label].take(details)
                if time.monotonic() >= self._written + EVERY_S:
                    self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        claims = [asdict(t.claim(label)) for label, t in self._trainings.items()]
        noted = {"at": time.time(), "trainings": claims, "queued": sorted(self._queued)}
        text = json.dumps(noted) + "\n"
        write_whole(self._file, text, sync=False)

    def close(self) -> None:
        """Remove the file, where that is possible. Idempotent."""
        with suppress(OSError):
            self._file.unlink()


@dataclass(frozen=True, slots=True)
class TrainingNotes:
    """The content of the file: claims, and the labels of evaluations that wait for a GPU."""

    trainings: list[TrainingClaim] = field(default_factory=list)
    queued: list[Annotated[str, Field(max_length=20)]] = field(default_factory=list)


_NOTED = TypeAdapter(TrainingNotes)


def read(run: Path) -> TrainingNotes:
    """Return the notes on a run's trainings, as of now; empty notes where they cannot be used."""
    try:
        noted = json.loads(read_text(run / FILE, most=MOST_BYTES))
        age_s = max(0.0, time.time() - float(noted.pop("at")))
        for claim in noted["trainings"]:
            claim["left_s"] = max(0.0, claim["left_s"] - age_s)
        return _NOTED.validate_python(noted)
    except DAMAGE:
        return TrainingNotes()
