"""What a run was asked, and what the names in it stood for when it began."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.core.limits import Limits
from harness.core.writing import Writing

FORMAT = 1
"""Of every file in a run directory."""

REPLAY = "replay:"
"""An agent's name that begins so repeats the run that follows."""


class Asked(BaseModel):
    """``run.toml``: the command line, with its defaults filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = FORMAT
    task: str
    profile: str
    agent: str
    policy: str
    settings: tuple[str, ...] = ()
    steps: int
    time_s: float
    seed: int
    sandbox: Literal["auto", "docker", "bubblewrap", "process"]
    workers: int = 1
    data: dict[str, str] = Field(default_factory=dict)
    """What replaces values of the profile's ``data``: source, byte_counts."""
    gpu_hours: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    dollars: float | None = None
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
    direction: Literal["maximize", "minimize"] = "maximize"
    audit_key: str
    """Drawn once a run; with it the judge derives serving orders that nobody can foresee."""

    @property
    def maximize(self) -> bool:
        """Whether a larger score is a better one."""
        return self.direction == "maximize"

    @property
    def best(self) -> Callable[..., Any]:
        """The built-in that picks the best of several scores."""
        return max if self.maximize else min
