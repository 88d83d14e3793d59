"""What an evaluation is asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sandboxes.base import Backend
from tasks.definition import Manifest
from tasks.spec import Task


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
