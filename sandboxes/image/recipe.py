"""What the image must hold, and under which names the engine has it."""

import hashlib
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

NAME = "aira-harness"
CURRENT = f"{NAME}:current"
"""The image that sandboxes use, unless ``HARNESS_IMAGE`` names another."""

LABEL = "aira-harness.packages"
"""Label of an image: what ``wanted`` said when it was made."""

PYTHON = "/opt/venv/bin/python"
"""The interpreter inside."""

TRITON_NEEDS = ("gcc", "libc6-dev", "python3-dev")
"""Debian packages: inside the sandbox Triton compiles a launcher for each kernel."""

PLAIN = ("torch", "numpy")
"""In the version that the harness itself runs with: scores name that version."""
EXTRA = ("einops==0.8.2",)


def wanted() -> tuple[str, ...]:
    """Return the requirements, with their versions as far as this machine has the packages.

    The local part of a version (``+cpu``) is left out: which build it is differs by machine.
    """
    found = []
    for package in PLAIN:
        try:
            found.append(f"{package}=={version(package).partition('+')[0]}")
        except PackageNotFoundError:
            found.append(package)
    return (*found, *EXTRA)


def digest(base: str, *more: str) -> str:
    """Return 12 characters that stand for all that goes into the image on this ``base``."""
    hashed = hashlib.sha256()
    for part in (*wanted(), base, *more, platform.python_version_tuple()[1], platform.machine()):
        hashed.update(part.encode() + b"\0")
    for name in ("Dockerfile", "build.py"):
        hashed.update((Path(__file__).parent / name).read_bytes())
    return hashed.hexdigest()[:12]


def name() -> str:
    """Return the image that sandboxes are made of."""
    return os.environ.get("HARNESS_IMAGE") or CURRENT


def stale(image: Mapping[str, Any]) -> str:
    """Say what is wrong with an image that the engine has, or nothing.

    An image that somebody named in ``HARNESS_IMAGE`` is theirs to answer for.
    """
    if os.environ.get("HARNESS_IMAGE"):
        return ""
    labels = image["Config"].get("Labels") or {}
    held, need = labels.get(LABEL, ""), " ".join(wanted())
    return "" if held == need else f"it holds {held or 'nothing known'}, and {need} is needed"
