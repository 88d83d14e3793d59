"""Parses durations such as ``15m``, and shows seconds as durations for people."""

import re

from harness.base.errors import ConfigError


def parse_duration(text: str) -> float:
    """Return ``90``, ``90s``, ``15m``, ``24h`` or ``2d`` in seconds. Raises ConfigError."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)([smhd]?)", text.strip())
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"{text!r} is not a duration.", remedy="for example 90s, 15m, 24h, 2d")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def show_duration(seconds: float) -> str:
    """Return a duration as ``m:ss``, or as ``h:mm:ss`` from one hour on."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def short(seconds: float) -> str:
    """Return a duration in four characters or so: 45s, 12m, 3.2h, 2.5d."""
    if seconds < 100:
        return f"{seconds:.0f}s"
    if seconds < 6000:
        return f"{seconds / 60:.0f}m"
    hours = seconds / 3600
    return f"{hours:.3g}h" if hours < 100 else f"{hours / 24:.3g}d"
