"""What a run may set for an agent with a model: how the model is called, and what it is told."""

from pathlib import Path
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from harness.base.strict import Strict


class Writing(Strict):
    """The options of ``harness run`` for agents with a model; None means the entry's default.

    Folders and files are absolute, so that a run can be resumed from anywhere.
    """

    base_url: str | None = None
    effort: str | None = None
    temperature: float | None = None
    max_answer_tokens: int | None = None
    agents_file: Path | None = None
    prompts: Path | None = None
    """A folder of templates."""
    literature: Path | None = None
    """A folder of notes."""
    answer_format: Literal["whole", "edits"] = "whole"
    """For improve and debug; other operators always get whole files."""
    analyze: bool = False
    """Costs one short call a node."""
    complexity: bool = False
    """Adds AIRA-dojo's cue, which its released configurations leave off."""
    blind: bool = False
    """The model is told neither the task's names nor what its primitives are called."""

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``blind`` out unless it is on: other runs are recorded as before there was one."""
        values: dict[str, Any] = write(self)
        if not self.blind:
            values.pop("blind", None)
        return values
