"""What a run may set for an agent with a model: how the model is called, and what it is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.base.strict import Strict


@dataclass(frozen=True, slots=True)
class Settings:
    """How the model is called; None means the default of the agent's entry."""

    base_url: str | None = None
    effort: str | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """What the model is told. It decides the agent's answers, so it is part of the lock.

    ``prompts`` and ``literature`` are folders. ``answer_format`` is for improve and debug; other
    operators always get whole files. ``analyze`` costs one short call a node. ``complexity`` adds
    AIRA-dojo's cue, which its released configurations leave off.
    """

    prompts: Path | None = None
    literature: Path | None = None
    answer_format: Literal["whole", "edits"] = "whole"
    analyze: bool = False
    complexity: bool = False


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
    literature: Path | None = None
    answer_format: Literal["whole", "edits"] = "whole"
    analyze: bool = False
    complexity: bool = False

    @property
    def settings(self) -> Settings:
        """How the model is called."""
        return Settings(self.base_url, self.effort, self.temperature, self.max_answer_tokens)

    @property
    def style(self) -> PromptStyle:
        """What the model is told."""
        return PromptStyle(
            self.prompts, self.literature, self.answer_format, self.analyze, self.complexity
        )
