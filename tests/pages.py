"""Reads what tests take from pages of the documentation: files, commands, prose."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_NAMED = re.compile(r"`([\w./-]+)`:\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBERED = re.compile(r"^## \d\. `(\S+)`.*?^```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^(`{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)


def named_files(text: str) -> dict[str, str]:
    """Return the files that a page shows as ``NAME:`` and a block."""
    return dict(_NAMED.findall(text))


def numbered_files(text: str) -> dict[str, str]:
    """Return the files that a page shows in sections of their own, ``## 1. NAME``."""
    return dict(_NUMBERED.findall(text))


def consoles(text: str) -> list[list[str]]:
    """Return the commands of each console block; lines that are output are left out."""
    return [re.findall(r"^\$ (.*)$", block, re.MULTILINE) for block in _CONSOLE.findall(text)]


def blocks(text: str) -> list[str]:
    """Return all blocks of code."""
    return [match[0] for match in _FENCE.finditer(text)]


def prose(text: str) -> str:
    """Return a page without its blocks of code."""
    return _FENCE.sub("", text)
