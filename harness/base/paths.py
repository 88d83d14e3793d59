"""The folder of prepared data, the prefix of scratch folders, and names that are safe for files."""

import os
import re
from pathlib import Path

from platformdirs import user_cache_path

from harness.base.errors import ConfigError

STAGE_PREFIX = "harness-eval-"
"""Prefix of the name of an evaluation's scratch folder; its process id follows."""


def data_root() -> Path:
    """Return the folder of prepared data: $HARNESS_DATA, or ``harness`` in the user's cache."""
    if named := os.environ.get("HARNESS_DATA"):
        return Path(named)
    try:
        return user_cache_path("harness", appauthor=False)
    except RuntimeError as error:
        raise ConfigError(
            "There is no home folder to keep data in.",
            cause="HOME is not set, and this user is not in /etc/passwd",
            remedy="HARNESS_DATA=DIR",
        ) from error


def plain_name(text: str) -> str:
    """Return a name close to ``text`` that every file system and archive accepts."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip("._-") or "run"
