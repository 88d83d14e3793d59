"""What a run may set of an agent that has a model: how the model is asked, and what it is told."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.agents.catalogue import Settings
from harness.operators.style import Style


class Writing(BaseModel):
    """The options of ``harness run`` for agents with a model; None means the table's default.

    Folders and files are absolute, so that a run can be resumed from anywhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    base_url: str | None = None
    effort: str | None = None
    temperature: float | None = None
    max_answer_tokens: int | None = None
    agents_file: Path | None = None
    prompts: Path | None = None
    literature: Path | None = None
    answer_format: Literal["whole", "edits"] = "whole"
    analyze: bool = False
    complexity: bool = False

    @property
    def settings(self) -> Settings:
        """How the model is asked."""
        return Settings(self.base_url, self.effort, self.temperature, self.max_answer_tokens)

    @property
    def style(self) -> Style:
        """What the model is told."""
        return Style(
            self.prompts, self.literature, self.answer_format, self.analyze, self.complexity
        )
