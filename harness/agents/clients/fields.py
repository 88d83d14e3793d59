"""Reads single fields of what a server sent: nothing about their types is to be trusted."""

from collections.abc import Mapping
from typing import Any


def word(holder: object, name: str) -> str:
    """Return a field that should be text; empty where it is not."""
    value = thing(holder).get(name)
    return value if isinstance(value, str) else ""


def count(holder: object, name: str) -> int | None:
    """Return a field that should be a number of tokens; None where it is not."""
    value = thing(holder).get(name)
    ok = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
    return value if ok else None


def thing(value: object) -> Mapping[str, Any]:
    """Return what should be an object; an empty one where it is not."""
    return value if isinstance(value, Mapping) else {}


def inside(holder: object, name: str) -> Mapping[str, Any]:
    """Return a field that should be an object; an empty one where it is not."""
    return thing(thing(holder).get(name))


def items(holder: object, name: str) -> list[Any]:
    """Return a field that should be a list; an empty one where it is not."""
    value = thing(holder).get(name)
    return value if isinstance(value, list) else []
