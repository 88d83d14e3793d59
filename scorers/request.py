"""What an evaluation is asked, and what it gives."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.base.errors import HarnessError
from sandboxes.base import Backend
from scorers.score import Score
from tasks.definition import Manifest
from tasks.spec import Task

Observe = Callable[[str, dict[str, Any]], None]
"""Called as ``observe(what, details)``; details of ``progress`` are the candidate's claim."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to evaluate. ``files`` maps names to text; ``data`` is the prepared folder."""

    task: Task
    profile: str
    split: Literal["search", "test"]
    files: Mapping[str, str]
    data: Path
    manifest: Manifest
    training_seed: int
    audit_seed: str
    backend: Backend
    gpus: tuple[str, ...] = ()
    strict: bool = False

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where the submission computes."""
        return "cuda" if self.gpus else "cpu"

    @property
    def hidden(self) -> Path:
        """The folder of the rows that it is scored on."""
        return self.data / self.split


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation gives. ``log``: head and tail of what the submission printed."""

    score: Score
    log: bytes = b""


@dataclass(frozen=True, slots=True)
class Trial:
    """One of several evaluations that are made together, with its own watcher and its own end.

    Once ``cancel`` is set it is given up (Cancelled), and the others go on.
    """

    request: Request
    observe: Observe
    cancel: threading.Event


Together = Callable[[Sequence[Trial]], Sequence[Evaluated | HarnessError]]
"""What trains candidates together, on the GPUs of the first request: what became of each, in order.

See ``tasks.kinds.Kind.together``.
"""
