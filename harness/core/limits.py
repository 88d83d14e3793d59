"""The limits of a run's budgets. What a run has used is counted in ``harness.core.budget``."""

from pydantic import Field

from harness.base.strict import Strict


class BudgetLimits(Strict):
    """What a run may use; None means no limit. ``input_tokens`` includes cached tokens."""

    steps: int | None = Field(None, ge=1)
    time_s: float | None = Field(None, gt=0)
    gpu_hours: float | None = Field(None, gt=0)
    input_tokens: int | None = Field(None, ge=1)
    output_tokens: int | None = Field(None, ge=1)
    dollars: float | None = Field(None, gt=0)
    charge_waiting: bool = False
    """Whether waiting for GPUs and rate limits counts as time."""
