"""The toy task: where it lies, the options that name it, and copies of it with changes."""

import shutil
from pathlib import Path

TOYS = Path(__file__).with_name("toys")
TOY = ("--task", "toy", "--profile", "test")


def copy_toy(place: Path, *changes: tuple[str, str]) -> Path:
    """Copy the toy's folder to ``place``, replace texts of its task.toml, and return ``place``."""
    shutil.copytree(TOYS / "toy", place)
    toml = place / "task.toml"
    text = toml.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    toml.write_text(text)
    return place
