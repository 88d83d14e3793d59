"""Reads single fields of JSON that a server sent, whose types cannot be trusted."""

from collections.abc import Mapping
from typing import Any


def get_text(holder: object, name: str) -> str:
    """Return a field that should be text; "" if it is not."""
    value = as_object(holder).get(name)
    return value if isinstance(value, str) else ""


def get_count(holder: object, name: str) -> int | None:
    """Return a field that should be a number of tokens; None if it is not."""
    value = as_object(holder).get(name)
    ok = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
    return value if ok else None


def as_object(value: object) -> Mapping[str, Any]:
    """Return a value that should be an object; an empty object if it is not."""
    return value if isinstance(value, Mapping) else {}


def get_object(holder: object, name: str) -> Mapping[str, Any]:
    """Return a field that should be an object; an empty object if it is not."""
    return as_object(as_object(holder).get(name))


def get_list(holder: object, name: str) -> list[Any]:
    """Return a field that should be a list; an empty list if it is not."""
    value = as_object(holder).get(name)
    return value if isinstance(value, list) else []
