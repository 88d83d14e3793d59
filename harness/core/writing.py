"""What a run may set for an agent with a model: how the model is called, and what it is told."""

from pathlib import Path
from typing import Literal

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
