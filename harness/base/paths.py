"""Where things are kept, and under which names."""

import os
import re
from pathlib import Path

from harness.base.errors import ConfigError

STAGE_PREFIX = "harness-eval-"
"""Begins the name of an evaluation's scratch folder; the number of its process follows."""


def data_root() -> Path:
    """Return where prepared data are kept: $HARNESS_DATA, or the user's cache folder."""
    if named := os.environ.get("HARNESS_DATA"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    if cache.startswith("~"):
        raise ConfigError(
            "There is no home folder to keep data in.",
            cause="HOME is not set, and this user is not in /etc/passwd",
            remedy="HARNESS_DATA=DIR",
        )
    return Path(cache) / "harness"


def plain_name(text: str) -> str:
    """Return a name that every file system and archive takes, as near as can be."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip("._-") or "run"
