"""Adds up what a run's model calls used so far, from files like ``nodes/0007/calls/000.json``.

A call that was sent and not answered counts at its worst case, as a lost call does: the provider
may bill it. Replayed calls cost nothing. A missing price is counted as unknown, not as 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.core.budget import TOKENS_IN
from harness.core.model import Usage
from harness.store import outcome
from harness.store.tape import CallRecord, read_record


@dataclass(frozen=True, slots=True)
class CallTotals:
    """Tokens and dollars; ``unpriced`` counts the calls whose price is unknown."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float = 0.0
    unpriced: int = 0

    def __add__(self, other: "CallTotals") -> "CallTotals":
        return CallTotals(
            self.calls + other.calls,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.dollars + other.dollars,
            self.unpriced + other.unpriced,
        )


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
            self._total = sum((spent for _, spent in self._seen.values()), CallTotals())
        return self._total


def totals_of(spent: outcome.Spent) -> CallTotals:
    """Return the sums in ``result.json``: paid calls, and lost calls at their worst case."""
    kinds = (spent.model, spent.lost)
    return CallTotals(
        calls=sum(kind.calls for kind in kinds),
        tokens_in=sum(getattr(kind, name) for kind in kinds for name in TOKENS_IN),
        tokens_out=sum(kind.output_tokens for kind in kinds),
        dollars=sum(kind.dollars_known for kind in kinds),
        unpriced=sum(kind.unpriced_calls for kind in kinds),
    )


def _of(record: CallRecord) -> CallTotals:
    spent = sum((_one(lost.worst, lost.worst_dollars) for lost in record.lost), CallTotals())
    if record.replayed:
        return spent
    if record.reply is not None:
        return spent + _one(record.reply.usage, record.dollars)
    if record.status == "sent":
        return spent + _one(record.worst, record.worst_dollars)
    return spent


def _one(usage: Usage, dollars: float | None) -> CallTotals:
    return CallTotals(
        1, usage.prompt_tokens, usage.output_tokens, dollars or 0.0, int(dollars is None)
    )
