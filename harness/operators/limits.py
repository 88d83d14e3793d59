"""How much of a prompt each part may take, and which part is shortened first.

The numbers are our own choice, in estimated tokens (``text.tokens``); the public scaffolds cap only
a program's output (at about 1,250 tokens) and let the rest grow.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Part = Literal["task", "titles", "notes", "memory", "attempts", "code", "output", "message"]

LIMITS: Mapping[Part, int] = MappingProxyType(
    {
        "task": 12_000,  # description.md
        "titles": 1_000,  # of the literature
        "notes": 1_500,  # whole notes of the literature
        "memory": 8_000,  # the good nodes so far
        "attempts": 4_000,  # the chain of attempts that a debug step continues
        "code": 32_000,  # of each parent
        "output": 3_000,  # what each parent printed
        "message": 1_000,  # what the judge said of a failed node
    }
)

SHRINK: tuple[Part, ...] = (
    "notes",
    "memory",
    "output",
    "attempts",
    "titles",
    "code",
    "message",
    "task",
)
"""If a prompt does not fit a model's context, its parts are halved in this order: each part down to
its floor before the next part is shortened."""

FLOOR: Mapping[Part, int] = MappingProxyType({"task": 1_000, "code": 500, "message": 100})
"""The least limit of a part, in estimated tokens; 0 for a part that is not listed."""


def smaller(limits: Mapping[Part, int]) -> Mapping[Part, int] | None:
    """Return the next smaller limits, or None if every part is at its floor."""
    for part in SHRINK:
        floor = FLOOR.get(part, 0)
        if limits[part] > floor:
            half = limits[part] // 2
            return {**limits, part: max(floor, half if half >= 100 else 0)}
    return None
