"""Reads single fields of what a server sent: nothing about their types is to be trusted."""


def word(holder: object, name: str) -> str:
    """Return a field that should be text; empty where it is not."""
    value = getattr(holder, name, None)
    return value if isinstance(value, str) else ""


def count(holder: object, name: str) -> int | None:
    """Return a field that should be a number of tokens; None where it is not."""
    value = getattr(holder, name, None)
    ok = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
    return value if ok else None
