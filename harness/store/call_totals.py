"""Adds up what a run's model calls used so far, from files like ``nodes/0007/calls/000.json``.

A call that was sent and not answered counts at its worst case, as a lost call does: the provider
may bill it. Replayed calls cost nothing. A missing price is counted as unknown, not as 0.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from harness.core.budget import TOKENS_IN
from harness.core.model import Usage
from harness.store.outcome import Spent
from harness.store.tape import CallRecord, read_record


class CallTotals(NamedTuple):
    """Tokens and dollars; ``unpriced`` counts the calls whose price is unknown."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float = 0.0
    unpriced: int = 0


class CallFollower:
    """Follows the calls of one run."""

    def __init__(self, run: Path) -> None:
        self._nodes = run / "nodes"
        self._seen: dict[Path, tuple[tuple[int, int], CallTotals]] = {}
        self._total = CallTotals()

    def look(self, nodes: Iterable[int]) -> CallTotals:
        """Read the calls of these nodes that are new or have changed; return the sum of all.

        Raises ConfigError where a file does not hold a valid call.
        """
        grown = False
        for node in nodes:
            for file in (self._nodes / f"{node:04d}" / "calls").glob("[0-9]*.json"):
                found = file.stat()
                stamp = (found.st_mtime_ns, found.st_size)
                before = self._seen.get(file)
                if before is None or before[0] != stamp:
                    self._seen[file] = (stamp, _of(read_record(file)))
                    grown = True
        if grown:
            self._total = _sum(spent for _, spent in self._seen.values())
        return self._total


def totals_of(spent: Spent) -> CallTotals:
    """Return the sums in ``result.json``: paid calls, and lost calls at their worst case."""
    return _sum(
        CallTotals(
            kind.calls,
            sum(getattr(kind, name) for name in TOKENS_IN),
            kind.output_tokens,
            kind.dollars_known,
            kind.unpriced_calls,
        )
        for kind in (spent.model, spent.lost)
    )


def _of(record: CallRecord) -> CallTotals:
    calls = [_one(lost.worst, lost.worst_dollars) for lost in record.unanswered]
    if record.reply is not None and not record.replayed:
        calls.append(_one(record.reply.usage, record.dollars))
    return _sum(calls)


def _sum(parts: Iterable[CallTotals]) -> CallTotals:
    return CallTotals(*map(sum, zip(*parts, strict=True)))


def _one(usage: Usage, dollars: float | None) -> CallTotals:
    return CallTotals(
        1, usage.prompt_tokens, usage.output_tokens, dollars or 0.0, int(dollars is None)
    )
