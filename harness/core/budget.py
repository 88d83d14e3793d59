"""Budgets: what a run may use, what it has used, and what its calls under way could still use.

    steps      nodes that were chosen
    time       seconds that the run was active, less the mean waiting time of its slots
    GPU-hours  GPUs times the seconds of evaluations; nothing on a CPU
    tokens in, tokens out, dollars
               what calls used, and the worst cases of calls that are under way or were lost

All are checked before a node is chosen; tokens and dollars before every call as well.

Nodes under way are finished, so they may exceed the limits of time and GPU-hours. The limits of
tokens and dollars are never exceeded: a call whose worst case does not fit is not sent. The final
retraining counts in no budget. Waiting for rate limits and for GPUs is recorded, and charged only
if ``charge_waiting`` is set.

An unknown price stays unknown: sums give the known dollars and the number of calls without a price.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import Field

from harness.base.errors import Cancelled, ConfigError
from harness.base.strict import Strict
from harness.core.model import BudgetSpent, PriceOf, Usage

CallKind = Literal["paid", "lost", "replayed"]
"""Paid: a call that was answered. Lost: a call that was sent, but its answer was cut off or its
process was killed before the answer was on disk; it counts at its worst case, because the provider
may have billed it. Replayed: a call whose answer was read from another run."""

TOKENS_IN = ("input_tokens", "cached_tokens", "cache_write_tokens")
TOKENS = (*TOKENS_IN, "output_tokens", "reasoning_tokens")
CHARGED = {"input_tokens": "input tokens", "output_tokens": "output tokens", "dollars": "dollars"}
"""The budgets that calls are charged to, by name in ``BudgetLimits``, in words."""
WORDS = {"steps": "steps", "time_s": "seconds", "gpu_hours": "GPU-hours", **CHARGED}
"""All budgets, in words."""
POLL_S = 0.2
"""Seconds after which a call that waits for room in the budget checks whether to cancel."""


class BudgetLimits(Strict):
    """What a run may use; None means no limit. ``input_tokens`` includes cached tokens."""

    steps: int | None = Field(None, ge=1)
    time_s: float | None = Field(None, gt=0)
    gpu_hours: float | None = Field(None, gt=0)
    input_tokens: int | None = Field(None, ge=1)
    output_tokens: int | None = Field(None, ge=1)
    dollars: float | None = Field(None, gt=0)
    charge_waiting: bool = False
    """Whether waiting for GPUs and rate limits counts as time."""


def refuse_unknown_price(limits: BudgetLimits, price: PriceOf, agent: str) -> None:
    """Raise ConfigError if dollars are limited and the price of a token is unknown."""
    if limits.dollars is not None and price(Usage(input_tokens=1000, output_tokens=1000)) is None:
        raise ConfigError(
            f"The price of {agent} is unknown: a limit of ${limits.dollars:g} could not be held.",
            remedy="give its price in an agents file of your own, or limit tokens: "
            "--max-input-tokens, --max-output-tokens",
        )


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is, from its journal and its tree."""

    steps: int
    active_s: float
    """Seconds that its processes ran."""
    evaluated_s: float
    """Seconds of its nodes' evaluations, added up."""
    queued_s: float = 0.0
    """Seconds that its evaluations waited for GPUs, added up."""
    queued_before_s: float = 0.0
    """Seconds that it waited for GPUs before it was active; only older runs did so."""


@dataclass
class Tally:
    """Sums over calls. ``dollars`` adds the known prices; ``unpriced`` counts the other calls.

    ``estimated`` counts the calls whose tokens the provider did not report: their bytes are an
    upper bound. ``seconds`` is the model's time, ``waited_s`` that of rate limits, back-off and
    queues.
    """

    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    dollars: float = 0.0
    unpriced: int = 0
    estimated: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0

    def add(self, usage: Usage, dollars: float | None, seconds: float, waited_s: float) -> None:
        """Add one call."""
        self.calls += 1
        self.estimated += usage.estimated
        for name in TOKENS:
            setattr(self, name, getattr(self, name) + getattr(usage, name))
        if dollars is None:
            self.unpriced += 1
        else:
            self.dollars += dollars
        self.seconds += seconds
        self.waited_s += waited_s

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; ``dollars`` is null where the price of a call is unknown."""
        return {
            "calls": self.calls,
            **{name: getattr(self, name) for name in TOKENS},
            "dollars": None if self.unpriced else round(self.dollars, 6),
            "dollars_known": round(self.dollars, 6),
            "unpriced_calls": self.unpriced,
            "estimated_calls": self.estimated,
            "seconds": round(self.seconds, 3),
            "waited_s": round(self.waited_s, 3),
        }


@dataclass(frozen=True, slots=True)
class Reservation:
    """The most that a call under way could use: its worst case."""

    usage: Usage
    dollars: float | None

    def of(self, what: str) -> float:
        """Return the worst case in one budget, a key of ``CHARGED``."""
        match what:
            case "input_tokens":
                return self.usage.prompt_tokens
            case "output_tokens":
                return self.usage.output_tokens
            case _:
                return self.dollars or 0.0


class Budget:
    """What one run has used. Thread-safe. ``gpus``: the number of GPUs of an evaluation."""

    def __init__(self, limits: BudgetLimits, *, workers: int = 1, gpus: int = 0) -> None:
        self.limits = limits
        self.workers = workers
        self.gpus = gpus
        self.tallies: dict[CallKind, Tally] = {kind: Tally() for kind in get_args(CallKind)}
        self._charged = dict.fromkeys(CHARGED, 0.0)
        self._failed_s = 0.0
        self._reservations: list[Reservation] = []
        self._changed = threading.Condition()

    def reserve(self, reservation: Reservation, *, call: str, cancel: threading.Event) -> None:
        """Set aside what a call could cost. ``call`` names it in errors.

        While the room is too small and other calls are under way, wait for them: most cost far
        less than their worst case. Raises BudgetSpent, Cancelled; ConfigError if dollars are
        limited and the price is unknown.
        """
        if self.limits.dollars is not None and reservation.dollars is None:
            raise ConfigError(
                f"{call} was not sent: its price is unknown, and dollars are limited.",
                remedy="a limit of tokens instead: --max-input-tokens, --max-output-tokens",
            )
        with self._changed:
            while (lack := self._lack(reservation)) and self._reservations:
                if cancel.is_set():
                    raise Cancelled("Stopped while a call waited for room in the budget.")
                self._changed.wait(POLL_S)
            if lack:
                raise BudgetSpent(f"{call} was not sent: {lack}.")
            self._reservations.append(reservation)

    def release(self, reservation: Reservation, *, failed_s: float) -> None:
        """Undo a reservation: the provider refused after ``failed_s`` and charged nothing."""
        with self._changed:
            self._drop(reservation)
            self._failed_s += failed_s

    def settle(
        self,
        reservation: Reservation,
        usage: Usage,
        dollars: float | None,
        seconds: float,
        waited_s: float,
    ) -> None:
        """Replace a reservation by what the call really used."""
        with self._changed:
            self._drop(reservation)
            self.count("paid", usage, dollars, seconds, waited_s, worst_dollars=reservation.dollars)

    def lose(self, reservation: Reservation) -> None:
        """Charge a reservation in full, if it still stands: the call's outcome is unknown."""
        with self._changed:
            if any(h is reservation for h in self._reservations):
                self._drop(reservation)
                self.count("lost", reservation.usage, reservation.dollars)

    def count(
        self,
        kind: CallKind,
        usage: Usage,
        dollars: float | None,
        seconds: float = 0.0,
        waited_s: float = 0.0,
        *,
        worst_dollars: float | None = None,
    ) -> None:
        """Add one call that has ended. If its price is unknown, ``worst_dollars`` are charged."""
        with self._changed:
            self.tallies[kind].add(usage, dollars, seconds, waited_s)
            if kind != "replayed":
                used = Reservation(usage, worst_dollars if dollars is None else dollars)
                for what in self._charged:
                    self._charged[what] += used.of(what)

    def count_failure(self, seconds: float) -> None:
        """Add the time of a call that failed in the end, its retries included."""
        with self._changed:
            self._failed_s += seconds

    def waited_s(self) -> float:
        """Return the seconds that slots waited for the provider; a failed call is all waiting."""
        with self._changed:
            return self._failed_s + self.tallies["paid"].waited_s

    def time_s(self, progress: RunProgress) -> float:
        """Return the seconds charged as time: the active ones, less the mean waiting of the slots.

        If waiting is charged, nothing is subtracted.
        """
        if self.limits.charge_waiting:
            return progress.active_s + progress.queued_before_s
        waited_s = self.waited_s() + progress.queued_s
        return max(0.0, progress.active_s - waited_s / self.workers)

    def gpu_hours(self, progress: RunProgress) -> float:
        """Return the GPU-hours of all evaluations so far."""
        return self.gpus * progress.evaluated_s / 3600

    def spent(self, progress: RunProgress) -> str:
        """Return in words which budget is used up; empty while every budget has some left."""
        for name, used, limit in self._limited(progress):
            if used >= limit:
                return f"{_show(used)} of {_show(limit)} {WORDS[name]} are used"
        return ""

    def left(self, progress: RunProgress) -> dict[str, float]:
        """Return what is left of each budget that has a limit, by its name in ``BudgetLimits``."""
        return {
            name: max(0, round(limit - used, 6)) for name, used, limit in self._limited(progress)
        }

    def to_json(self, progress: RunProgress) -> dict[str, Any]:
        """Return what was used, for result.json and screens."""
        with self._changed:
            return {
                "limits": self.limits.model_dump(exclude_none=True),
                "time_s": round(self.time_s(progress), 3),
                "gpu_hours": round(self.gpu_hours(progress), 6),
                "queued_s": round(progress.queued_s + progress.queued_before_s, 3),
                "waited_s": round(self.waited_s(), 3),
                "model": self.tallies["paid"].to_json(),
                "lost": self.tallies["lost"].to_json(),
                "replayed": self.tallies["replayed"].to_json(),
            }

    def _limited(self, progress: RunProgress) -> Iterator[tuple[str, float, float]]:
        """Yield name, used amount and limit of each budget that has a limit."""
        with self._changed:
            used = {
                "steps": progress.steps,
                "time_s": self.time_s(progress),
                "gpu_hours": self.gpu_hours(progress),
                **self._charged,
            }
        for name in WORDS:
            limit = getattr(self.limits, name)
            if limit is not None:
                yield name, used[name], limit

    def _lack(self, reservation: Reservation) -> str:
        for what, words in CHARGED.items():
            limit: float | None = getattr(self.limits, what)
            if limit is None:
                continue
            held = sum(h.of(what) for h in self._reservations)
            left = max(0.0, limit - self._charged[what] - held)
            if reservation.of(what) > left:
                return (
                    f"it could use {_show(reservation.of(what))} {words}, "
                    f"and {_show(left)} of {_show(limit)} are left"
                )
        return ""

    def _drop(self, reservation: Reservation) -> None:
        # By identity: two calls may have equal worst cases.
        self._reservations = [h for h in self._reservations if h is not reservation]
        self._changed.notify_all()


def _show(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.4g}"
