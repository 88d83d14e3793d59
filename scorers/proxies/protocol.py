"""What the judge and the process that trains proxies say to each other: lines of JSON."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

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


@dataclass(frozen=True, slots=True)
class Measured:
    """How one candidate did on the withheld rows of one token task.

    ``accuracy`` is micro: right answers by asked targets. ``row_error`` is its standard error, with
    rows as clusters; NaN for a single row. ``macro`` is the mean recall of the classes that occur
    in the targets of the whole set. ``loss`` is in nats an asked target, and ``loss_error`` is its
    standard error, as that of the accuracy. If training diverged both are NaN, and the three before
    are 0. ``curve`` holds about 20 points: a step, and the mean training
    loss since the point before. It ends where the loss stops being finite.
    """

    accuracy: float
    row_error: float
    macro: float
    loss: float
    loss_error: float
    curve: tuple[tuple[int, float], ...]


class Done(Strict):
    """The results of a job: of each part, one for each candidate, in order."""

    model_config = ConfigDict(ser_json_inf_nan="constants")
    kind: Literal["done"] = "done"
    results: dict[str, tuple[Measured, ...]]


class Failed(Strict):
    """A job that could not be trained. ``memory``: there was not enough of it."""

    kind: Literal["failed"] = "failed"
    message: str
    memory: bool = False


Report = Step | Done | Failed
REPORT: TypeAdapter[Report] = TypeAdapter(Annotated[Report, Field(discriminator="kind")])
