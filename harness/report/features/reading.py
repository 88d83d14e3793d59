"""Reads the features of many sources in a separate process, and tells how two sources differ.

``rules`` defines what a feature is.
"""

from collections.abc import Iterable
from contextlib import closing

from harness.base.answering import AnsweringProcess
from harness.report.features import rules
from harness.report.features.rules import CODE, Features

TIMEOUT_S = 20.0
"""Limit for one source; parsing a megabyte takes about two seconds."""
MOST_MEMORY = 2 << 30


def features_of(sources: Iterable[str]) -> dict[str, Features | None]:
    """Return each source's features; None where it does not parse, or its reader died or hung."""
    found: dict[str, Features | None] = {}
    reader = AnsweringProcess(rules.__file__, timeout_s=TIMEOUT_S, most_bytes=MOST_MEMORY)
    with closing(reader):
        for source in dict.fromkeys(sources):
            try:
                found[source] = reader.ask(source)
            except (OSError, ValueError):
                found[source] = None
    return found


def changed(before: Features, after: Features) -> frozenset[str]:
    """Return the features that differ between two sources; CODE only if nothing else does."""
    names = (before.keys() | after.keys()) - {CODE}
    known = frozenset(name for name in names if before.get(name) != after.get(name))
    if known or before.get(CODE) == after.get(CODE):
        return known
    return frozenset({CODE})
