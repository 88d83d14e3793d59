"""Makes and records a run's model calls: every answer is on disk before anything uses it.

    operator ──► Model (bound to a node) ──► answered before?  ── yes ──► the answer on disk
                                              │ no
                              room in the budget? ──► "sent" on disk ──► client ──► answer on disk

The answer to a node's k-th call is looked up in the run itself (which may be resumed after a
kill), then in the run that is replayed. The recorded request must equal the new one exactly; then
nothing is sent and nothing is paid. One node makes its calls one after another; several nodes may
make calls at the same time.

No call is paid twice on purpose. A process that is killed between request and response leaves
"sent" on disk; the resumed run asks again and charges the first call at its worst case. A try whose
answer was cut off on its way is charged in the same way, before the client asks again.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from harness.base.errors import ConfigError, ProviderError
from harness.base.text import clean, encodable
from harness.core.budget import TOKENS, Budget, Reservation
from harness.core.model import Endpoint, Prompt, Reply, Usage
from harness.store.recording import Recording
from harness.store.tape import (
    CallFailure,
    CallRecord,
    Divergence,
    Tape,
    difference,
    request_hash,
    system_hash,
)


class Calls:
    """All calls of one run. Thread-safe.

    ``endpoint`` may be None if every answer comes from ``recording``, a run that is replayed.
    Raises ConfigError if a recorded call is damaged; nothing is written before the first call.
    """

    def __init__(
        self,
        run: Path,
        *,
        budget: Budget,
        endpoint: Endpoint | None = None,
        recording: Recording | None = None,
        say: Callable[[str], None],
    ) -> None:
        self.budget = budget
        self.tape = Tape(run)
        self._endpoint = endpoint
        self._recording = recording
        self._say = say
        for record in self.tape:
            add_to_budget(record, budget)
            if recording is not None and record.divergence:
                recording.diverged = record.divergence

    def bind(self, node: int, cancel: threading.Event | None = None) -> "BoundModel":
        """Return the model for one node, whose calls are numbered from 0.

        Once ``cancel`` is set, calls end with Cancelled.
        """
        return BoundModel(self, node, cancel or threading.Event())

    def recorded(self, node: int, call: int) -> tuple[CallRecord, Tape] | None:
        """Return an answered call and the tape that holds it; this run's own tape comes first."""
        followed = self._followed()
        for tape in (self.tape, followed.tape) if followed else (self.tape,):
            record = tape.read(node, call)
            if record is not None and record.status == "answered":
                return record, tape
        return None

    def fits(self, prompt: Prompt) -> bool:
        """Return whether a prompt and a full answer fit the context; False without an endpoint.

        A replay without an endpoint gets here only if the recorded node made no further call.
        """
        if self._endpoint is None:
            return False
        return self._endpoint.fits(*self._endpoint.client.worst_tokens(prompt))

    def complete(
        self, model: "BoundModel", prompt: Prompt, purpose: str, fits: tuple[bool, ...]
    ) -> Reply:
        """Return the answer to a node's next call, from a tape or from the endpoint."""
        found = self.recorded(model.node, model.call)
        if found is not None:
            record, tape = found
            problem = self._compare(record, tape, prompt)
            if not problem:
                if tape is not self.tape:
                    self._adopt(record, prompt)
                return _reply(record)
            place = f"node {model.node}, call {model.call} ({record.purpose})"
            if tape is self.tape:
                raise Divergence(
                    f"{place} was answered, but the question is another one now.",
                    cause=problem,
                    remedy="go back to the prompts and settings that the run began with, "
                    "or start a new run",
                )
            self._diverge(f"The replay of {tape.run} differs at {place}.", problem)
        elif (followed := self._followed()) is not None:
            self._diverge(
                f"The replay of {followed.run.path} differs at node {model.node}.",
                f"there it made {model.call} calls, and now one more ({purpose})",
            )
        return self._send(model, prompt, purpose, fits)

    def _followed(self) -> Recording | None:
        return None if self._recording is None or self._recording.diverged else self._recording

    def _compare(self, record: CallRecord, tape: Tape, prompt: Prompt) -> str:
        """Return how a request differs from the recorded one; empty if it does not."""
        describe = record.describe
        # Answers from another run belong to the settings of that run, whatever is set today.
        if self._endpoint is not None and tape is self.tape and not record.replayed:
            describe = self._endpoint.client.describe()
        if request_hash(describe, prompt) == record.hash:
            return ""
        return difference((record.describe, tape.prompt(record)), (describe, prompt))

    def _diverge(self, message: str, cause: str) -> None:
        recording = self._recording
        if recording is None or not recording.live or self._endpoint is None:
            raise Divergence(
                message,
                cause=cause,
                remedy="--on-divergence live asks the model itself from there on; what must be "
                "the same is said in docs/concepts/budgets.md",
            )
        recording.diverged = f"{message}\n{cause}"
        self._say(f"{message} From here on the model is asked.")

    def _adopt(self, record: CallRecord, prompt: Prompt) -> None:
        """Copy an answer of the replayed run into this run, so that this run is complete alone."""
        own = record.model_copy(update={"replayed": True, "lost": (), "failures": ()})
        self.tape.write(own, prompt)
        add_to_budget(own, self.budget)

    def _send(
        self, model: "BoundModel", prompt: Prompt, purpose: str, fits: tuple[bool, ...]
    ) -> Reply:
        if self._endpoint is None:
            raise ConfigError(f"Node {model.node} has no model to ask.")
        client, price = self._endpoint.client, self._endpoint.price
        tokens_in, tokens_out = client.worst_tokens(prompt)
        worst = Usage(input_tokens=tokens_in, output_tokens=tokens_out)
        reservation = Reservation(worst, self._endpoint.worst_price(tokens_in, tokens_out))
        name = f"node {model.node}, call {model.call} ({purpose})"
        before = self.tape.read(model.node, model.call)
        self.budget.reserve(reservation, call=name, cancel=model.cancel)
        began = time.monotonic()
        describe = client.describe()
        record = CallRecord(
            node=model.node,
            call=model.call,
            purpose=purpose,
            hash=request_hash(describe, prompt),
            describe=describe,
            system=system_hash(prompt),
            turns=prompt.turns,
            fits=fits,
            status="sent",
            sent=_now(),
            worst=reservation.usage,
            worst_dollars=reservation.dollars,
            divergence=self._recording.diverged if self._recording is not None else "",
            lost=before.unanswered if before else (),
            failures=before.failures if before else (),
        )

        def lost(again: bool) -> None:
            """Charge a try whose answer was cut off; reserve budget for the next try, if any."""
            nonlocal record
            record = record.model_copy(update={"lost": record.unanswered, "sent": _now()})
            self.budget.lose(reservation)
            self.tape.write(record.model_copy(update={"status": "failed"}), prompt)
            if again:
                self.budget.reserve(reservation, call=name, cancel=model.cancel)
                self.tape.write(record, prompt)

        try:
            self.tape.write(record, prompt)
            reply = client.send(
                prompt,
                say=lambda line: self._say(f"{name}: {clean(line, 400)}"),
                cancel=model.cancel,
                lost=lost,
            )
        except (ProviderError, ConfigError) as error:
            failed_s = time.monotonic() - began
            failure = CallFailure(sent=record.sent, seconds=failed_s, error=type(error).__name__)
            failed = {"status": "failed", "failures": (*record.failures, failure)}
            self.budget.release(reservation, failed_s=failed_s)
            self.tape.write(record.model_copy(update=failed), prompt)
            raise
        except BaseException:
            self.budget.lose(reservation)
            raise
        # A server may send anything: counts must not give budget back, nor text break a file.
        counts = {name: max(0, getattr(reply.usage, name)) for name in TOKENS}
        usage = replace(reply.usage, **counts)
        reply = replace(reply, text=encodable(reply.text), usage=usage)
        dollars = price(reply.usage)
        self.budget.settle(reservation, reply.usage, dollars, reply.seconds, reply.waited_s)
        done = {"status": "answered", "reply": reply, "dollars": dollars, "answered": _now()}
        self.tape.write(record.model_copy(update=done), prompt)
        return reply


class BoundModel:
    """A ``Model`` for one node: numbers its calls, and remembers what ``fits`` returned."""

    def __init__(self, calls: Calls, node: int, cancel: threading.Event) -> None:
        self.node = node
        self.call = 0
        self.cancel = cancel
        self._calls = calls
        self._fits: list[bool] = []
        self._said: tuple[bool, ...] | None = None

    def complete(self, prompt: Prompt, *, purpose: str) -> Reply:
        """Return the answer. Raises BudgetSpent, Divergence, and what the client raises."""
        reply = self._calls.complete(self, prompt, purpose, tuple(self._fits))
        self.call += 1
        self._fits.clear()
        self._said = None
        return reply

    def fits(self, prompt: Prompt) -> bool:
        """Return whether the prompt and a full answer fit the context; a recorded value wins."""
        if self._said is None:
            found = self._calls.recorded(self.node, self.call)
            self._said = found[0].fits if found else ()
        place = len(self._fits)
        recorded = self._said[place : place + 1]
        self._fits.append(recorded[0] if recorded else self._calls.fits(prompt))
        return self._fits[-1]


def add_to_budget(record: CallRecord, budget: Budget) -> None:
    """Add to a budget what a recorded call has used."""
    for lost in record.unanswered:
        budget.count("lost", lost.worst, lost.worst_dollars)
    budget.count_failure(sum(failure.seconds for failure in record.failures))
    if record.status == "answered":
        reply = _reply(record)
        budget.count(
            "replayed" if record.replayed else "paid",
            reply.usage,
            record.dollars,
            reply.seconds,
            reply.waited_s,
            worst_dollars=record.worst_dollars,
        )


def _reply(record: CallRecord) -> Reply:
    assert record.reply is not None, "an answered call has a reply"  # noqa: S101
    return record.reply


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
