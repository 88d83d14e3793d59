"""What the judge and the process that trains proxies say to each other: lines of JSON."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from harness.base.strict import Strict
from tasks.definition import Value


class ProxyJob(Strict):
    """Candidates to train together. ``gpu``: the UUID of a leased one; empty for the CPU.

    ``parts`` are the token tasks, whose rows lie in the folders ``train`` and ``held_out``.
    ``shape`` is the manifest's, ``settings`` are the profile's.
    """

    architectures: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...]
    train: str
    held_out: str
    shape: dict[str, int]
    settings: dict[str, Value]
    gpu: str
    threads: int

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the token tasks, in the manifest's order."""
        return tuple(k.removesuffix(".vocabulary") for k in self.shape if k.endswith(".vocabulary"))


class Step(Strict):
    """How far a job is: steps of all parts together."""

    kind: Literal["step"] = "step"
    part: str
    step: int
    total: int


class PartResult(Strict):
    """What a candidate reached on the held-out rows of a part; see ``trainer.Measured``.

    ``loss`` is None if the training diverged. ``curve``: pairs of step and training loss.
    """

    accuracy: float
    row_error: float
    macro: float
    loss: float | None
    curve: tuple[tuple[int, float | None], ...]


class Done(Strict):
    """The results of a job: of each part, one for each candidate, in order."""

    kind: Literal["done"] = "done"
    results: dict[str, tuple[PartResult, ...]]


class Failed(Strict):
    """A job that could not be trained. ``memory``: there was not enough of it."""

    kind: Literal["failed"] = "failed"
    message: str
    memory: bool = False


Report = Step | Done | Failed
REPORT: TypeAdapter[Report] = TypeAdapter(Annotated[Report, Field(discriminator="kind")])
