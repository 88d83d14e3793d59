"""Reads one file of a run into a pydantic model, and checks its format and every value."""

import json
import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.base.errors import ConfigError
from harness.base.files import read_values
from harness.base.validation import problems
from harness.core.asked import FORMAT

SEED = re.compile(r"^seed = (0|[1-9][0-9]{0,17})$", re.MULTILINE)

M = TypeVar("M", bound=BaseModel)

DAMAGE: tuple[type[Exception], ...] = (ConfigError, OSError, ValueError, TypeError, LookupError)
DAMAGE += (AttributeError, ArithmeticError, RecursionError)
"""The exceptions that reading JSON from a stranger can raise."""


def other_format(
    where: object, version: object, *, wanted: int = FORMAT, remedy: str = ""
) -> ConfigError:
    """Return the error for a file, or a line of one, that has another format than ours, or none."""
    if version is None:
        said, mend = "names no format", f"format = {wanted}, if it was written for this harness"
    else:
        said, mend = f"has format {version!r:.20}", "a newer version of the harness"
    return ConfigError(f"{where} {said}; this harness reads {wanted}.", remedy=remedy or mend)


def read_as(model: type[M], file: Path, *, follow: bool = False) -> M:
    """Return what a TOML or JSON file holds. Raises ConfigError naming the file and the value.

    ``follow``: the file may be a link; only for a path that the user named.
    """
    is_toml = file.suffix == ".toml"
    values, text = read_values(file, _toml if is_toml else json.loads, follow=follow)
    version = values.get("format")
    if version != FORMAT or isinstance(version, bool):
        raise other_format(file, version)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        cause = problems(error, model, toml=text if is_toml else "")
        raise ConfigError(f"{file} is damaged.", cause=cause) from error


def _toml(text: str) -> dict[str, Any]:
    """Parse TOML. Runs of one experiment differ only in the seed's line: the rest is parsed once.

    That is a third of the time of reading 2,400 runs.
    """
    head, bracket, tail = text.partition("\n[")
    found = SEED.findall(head)
    if len(found) != 1 or '"""' in text or "'''" in text:
        return tomllib.loads(text)
    return {**_toml_without_seed(SEED.sub("", head) + bracket + tail), "seed": int(found[0])}


@lru_cache(maxsize=1024)
def _toml_without_seed(text: str) -> dict[str, Any]:
    return tomllib.loads(text)
