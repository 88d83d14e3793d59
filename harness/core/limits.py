"""What a run may use."""

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """What a run may use; None is no limit. ``input_tokens`` counts cached ones too."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: int | None = Field(None, ge=1)
    time_s: float | None = Field(None, gt=0)
    gpu_hours: float | None = Field(None, gt=0)
    input_tokens: int | None = Field(None, ge=1)
    output_tokens: int | None = Field(None, ge=1)
    dollars: float | None = Field(None, gt=0)
    charge_waiting: bool = False
    """Whether waiting for GPUs and rate limits counts as time."""
