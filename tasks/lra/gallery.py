"""The gallery: reference mechanisms, each a valid ``model.py`` for every Long Range Arena task.

Each is one file under ``designs/``. A task names those it wants in ``task.toml``; a file of that
name in the task's own ``designs/`` takes precedence.
"""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from harness.base.errors import ConfigError
from harness.base.validation import did_you_mean

FOLDER = Path(__file__).parent / "designs"
NAMES = (
    "softmax",
    "rotary",
    "sliding_window",
    "linear_attention",
    "performer",
    "nystrom",
    "s4d",
    "gated_recurrence",
    "long_convolution",
    "mega",
    "tree",
)
"""From attention through its approximations to recurrences; all tables have this order."""


def source_of(name: str) -> Path:
    """Return the file of that mechanism. Raises ConfigError naming the most similar one."""
    if name not in NAMES:
        raise ConfigError(
            f"The gallery has no mechanism {name!r}.", remedy=did_you_mean(name, NAMES)
        )
    return FOLDER / f"{name}.py"


@cache
def load(name: str) -> ModuleType:
    """Import that mechanism's file, as the shell does, and return it as a module.

    This also imports torch.
    """
    path = source_of(name)
    spec = importlib.util.spec_from_file_location(f"gallery_{name}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # where torch.compile looks for it
    spec.loader.exec_module(module)
    return module
