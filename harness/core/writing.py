"""What a run may set for an agent with a model: how the model is called, and what it is told."""

from pathlib import Path
from typing import Literal

from harness.base.strict import Strict


class Settings(Strict):
    """How the model is called; None means the default of the agent's entry.

    ``agents_file`` is the user's own table, where that entry may be.
    """

    base_url: str | None = None
    effort: str | None = None
    temperature: float | None = None
    max_answer_tokens: int | None = None
    agents_file: Path | None = None


class PromptStyle(Strict):
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


# The fields of the last base come first, in run.toml too.
class Writing(PromptStyle, Settings):
    """The options of ``harness run`` for agents with a model.

    Folders and files are absolute, so that a run can be resumed from anywhere.
    """
