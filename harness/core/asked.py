"""What a run was asked, and what the names in it stood for when it began."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.core.limits import Limits
from harness.core.writing import Writing
from tasks.metrics import Direction

FORMAT = 1
"""Of every file in a run directory."""

REPLAY = "replay:"
"""An agent's name that begins so repeats the run that follows."""


class Asked(BaseModel):
    """What a run is asked: the one request, whoever makes it.

    ``harness run`` fills it from its options, a suite is a list of it, a sweep hands it over as a
    file, and ``run.toml`` is it, with what was left open filled in. What is left out has the
    defaults of ``harness run``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = FORMAT
    task: str
    profile: str = "smoke"
    agent: str = "reference"
    policy: str = "greedy"
    settings: tuple[str, ...] = ()
    """Parameters of the policy: ``greedy.num_drafts=3``."""
    steps: Annotated[int, Field(ge=0)] = 0
    """0: as many as the profile has, or the run that is repeated; never so in ``run.toml``."""
    time_s: Annotated[float, Field(gt=0)] = 86_400.0
    seed: Annotated[int, Field(ge=0)] = 0
    sandbox: str = "auto"
    """Where submissions run; ``auto`` is the best that is here."""
    executor: str = "local"
    """Who finds a place for each evaluation."""
    workers: Annotated[int, Field(ge=1)] = 1
    data: dict[str, str] = Field(default_factory=dict)
    """What replaces values of the profile's ``data``: source, byte_counts."""
    gpu_hours: Annotated[float | None, Field(gt=0)] = None
    input_tokens: Annotated[int | None, Field(ge=1)] = None
    output_tokens: Annotated[int | None, Field(ge=1)] = None
    dollars: Annotated[float | None, Field(gt=0)] = None
    charge_waiting: bool = False
    on_divergence: Literal["stop", "live"] = "stop"
    writing: Writing = Field(default_factory=Writing)

    @property
    def limits(self) -> Limits:
        """The budgets."""
        return Limits.model_validate({name: getattr(self, name) for name in Limits.model_fields})


class Locked(BaseModel):
    """``lock.json``: what was asked when the run began, and what the names stood for."""

    # A budget may be infinite, and is read back as such.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")
    format: int = FORMAT
    asked: Asked | None = None
    """``run.toml`` as it was; None in a lock of before runs kept that."""
    harness: str
    task_hash: str
    data_hash: str
    hidden_key: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")
    """Of the key that hidden rows were drawn with, the fingerprint; empty for published rows."""
    data: str
    scorer: str
    sandbox: str
    image: str = ""
    """The digest of the sandbox's image, where it has one."""
    policy: dict[str, float | int | str]
    agent: dict[str, Any] = Field(default_factory=dict)
    """What decides the answers of an agent with a model: settings, hashes of its prompts."""
    prices: tuple[dict[str, Any], ...] = ()
    """Dollars per million tokens when the run began."""
    versions: dict[str, str]
    hardware: dict[str, str | int]
    direction: Direction = "maximize"
    audit_key: str
    """Drawn once a run; with it the judge derives serving orders that nobody can foresee."""

    @property
    def gpus(self) -> int:
        """How many GPUs an evaluation has."""
        return 1 if "gpu" in self.hardware else 0

    @property
    def maximize(self) -> bool:
        """Whether a larger score is a better one."""
        return self.direction == "maximize"

    @property
    def best(self) -> Callable[..., Any]:
        """The built-in that picks the best of several scores."""
        return max if self.maximize else min
