"""How an agent with a model is asked: what a user may choose."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Style:
    """Choices of ``harness run``; part of what makes an agent what it is, so part of the lock.

    ``prompts`` and ``literature`` are folders. ``answer_format`` is for improve and debug; other
    operators always get whole files. ``analyze`` costs one short call a node. ``complexity`` adds
    AIRA-dojo's cue, which its released configurations leave off.
    """

    prompts: Path | None = None
    literature: Path | None = None
    answer_format: Literal["whole", "edits"] = "whole"
    analyze: bool = False
    complexity: bool = False
