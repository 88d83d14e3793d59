"""``MANIFEST.json``, the first file of a bundle: every other file with its size and SHA-256."""

import re
from typing import Literal

from pydantic import ConfigDict, Field

from harness.base.strict import Strict

NAME = "MANIFEST.json"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+@ -]{0,127}"
PLAIN = re.compile(rf"^{_PART}(/{_PART}){{0,7}}\Z")
"""A relative path inside a run, of 1 to 8 parts: no part is hidden, and none is ``..``."""


class Member(Strict):
    """One file of the run."""

    path: str = Field(max_length=255)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class BundleManifest(Strict):
    """The files of a bundle, and the score it claims: the final one on the hidden test split."""

    model_config = ConfigDict(allow_inf_nan=False)
    format: Literal[1] = 1
    kind: Literal["harness run"] = "harness run"
    run: str = Field(max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    harness: str = Field(max_length=64)
    task: str = Field(max_length=255)
    profile: str = Field(max_length=255)
    metric: str = Field(max_length=64)
    score: float | None
    files: tuple[Member, ...]
