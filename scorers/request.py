"""The types that go into an evaluation (Request, Trial) and come out of it (Evaluated)."""

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
        """The device that the submission computes on."""
        return "cuda" if self.gpus else "cpu"

    @property
    def hidden(self) -> Path:
        """The folder with the rows that the submission is scored on."""
        return self.data / self.split


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Result of an evaluation. ``log``: head and tail of what the submission printed."""

    score: Score
    log: bytes = b""


@dataclass(frozen=True, slots=True)
class Trial:
    """One of several evaluations made together, with its own progress callback and cancel event.

    Once ``cancel`` is set, this evaluation ends with Cancelled and the others go on.
    """

    request: Request
    observe: Observe
    cancel: threading.Event


Together = Callable[[Sequence[Trial]], Sequence[Evaluated | HarnessError]]
"""Function that trains candidates together, on the GPUs of the first request.

Returns one result or error for each trial, in order. See ``tasks.kinds.Kind.together``.
"""
