"""The request for a run, and what the names in it resolved to when the run began.

``harness.store.rundir`` reads and writes both, as ``run.toml`` and ``lock.json``.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from harness.base.strict import Strict
from harness.core.budget import BudgetLimits
from harness.core.writing import Writing
from tasks.metrics import Direction

FORMAT = 1
"""The format version of the files in a run directory."""

REPLAY = "replay:"
"""Prefix of an agent's name; the path of the run to repeat follows."""


class Asked(Strict):
    """The request for one run.

    ``harness run`` fills it from its options, a suite is a list of requests, a sweep passes each
    as a file, and ``run.toml`` holds the request with the open fields filled in. Fields that are
    left out have the defaults of ``harness run``.
    """

    format: int = FORMAT
    task: str
    profile: str = "smoke"
    agent: str = "reference"
    policy: str = "greedy"
    settings: tuple[str, ...] = ()
    """Parameters of the policy: ``greedy.num_drafts=3``."""
    steps: Annotated[int, Field(ge=0)] = 0
    """0: the policy's own number of nodes, else the profile's; in a replay that of the repeated
    run. Never 0 in ``run.toml``."""
    time_s: Annotated[float, Field(gt=0)] = 86_400.0
    seed: Annotated[int, Field(ge=0)] = 0
    sandbox: str = "auto"
    """Where submissions run; ``auto`` is the best sandbox that works here."""
    executor: str = "local"
    """The executor, which finds a place to run each evaluation."""
    workers: Annotated[int, Field(ge=1)] = 1
    data: dict[str, str] = Field(default_factory=dict)
    """Values that replace those of the profile's ``data``: source, byte_counts."""
    gpu_hours: Annotated[float | None, Field(gt=0)] = None
    input_tokens: Annotated[int | None, Field(ge=1)] = None
    output_tokens: Annotated[int | None, Field(ge=1)] = None
    dollars: Annotated[float | None, Field(gt=0)] = None
    charge_waiting: bool = False
    on_divergence: Literal["stop", "live"] = "stop"
    writing: Writing = Field(default_factory=Writing)

    @property
    def limits(self) -> BudgetLimits:
        """The limits of the run's budgets."""
        return BudgetLimits.model_validate(
            {name: getattr(self, name) for name in BudgetLimits.model_fields}
        )


class Lockfile(Strict):
    """``lock.json``: the request when the run began, and what its names resolved to."""

    # A budget may be infinite, and is read back as such.
    model_config = ConfigDict(ser_json_inf_nan="constants")
    format: int = FORMAT
    asked: Asked | None = None
    """``run.toml`` when the run began; None in older locks, which do not hold it."""
    harness: str
    task_hash: str
    data_hash: str
    hidden_key: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")
    """Fingerprint of the key that hidden rows were drawn with; empty for published rows."""
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
    """Drawn at random once per run; the judge derives unpredictable serving orders from it."""

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
