"""Runs a suite: each run is a child process, ``concurrent`` at once, until none is left to do.

The run directories are the only state. The same sweep started again continues: finished runs are
left alone, begun runs are resumed, and runs that failed or were refused are tried again.

| a child ends with | then |
|---|---|
| a result | done, or invalid: never run again |
| 2 | refused: reported, not tried again in this sweep |
| 4 | no run of its provider starts for a while, longer each time; it is tried again |
| 130, SIGINT, SIGTERM | interrupted: left for the next sweep |
| anything else | tried again after a while, a few times |
"""

import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.base.errors import Cancelled, ConfigError, ProviderError
from harness.base.numbers import number
from harness.base.watching import unbreakable
from harness.store.call_totals import totals_of
from harness.store.follower import Follower, LiveRun
from harness.store.reading import DAMAGE
from harness.store.rundir import LOGS, REQUESTS, Run, write_asked
from harness.sweeps.agent_info import AgentInfo
from harness.sweeps.child import RunProcess
from harness.sweeps.plan import Plan
from harness.sweeps.suite import Planned

SweepRunState = Literal[
    "waiting",
    "running",
    "elsewhere",  # held by a process that is not our child; we wait for it
    "done",
    "invalid",  # ended normally, without a valid submission
    "refused",
    "failed",
    "interrupted",
    "paused",  # its provider failed too often
    "unaffordable",
]

HARNESS = (sys.executable, "-m", "harness")
STOPPED = (Cancelled.exit_code, -signal.SIGINT, -signal.SIGTERM)
CENT = 0.01


@dataclass(frozen=True, slots=True)
class SweepRetries:
    """How failures are handled; times in seconds. Waits double with each failure in a row."""

    retries: int = 2
    """How often a run is tried again after a fault of the harness or the machine."""
    back_off_s: float = 10.0
    pause_s: float = 300.0
    longest_pause_s: float = 3600.0
    strikes: int = 6
    """After this many failures in a row, with pauses between, a provider's runs start no more."""
    look_s: float = 0.25


@dataclass(slots=True)
class SweepRun:
    """One planned run and its state. ``limit``: the most dollars that it may spend."""

    run: Planned
    path: Path
    offer: AgentInfo
    state: SweepRunState = "waiting"
    message: str = ""
    limit: float = 0.0
    spent: float = 0.0
    unpriced: bool = False
    """Whether ``spent`` leaves out calls of unknown price."""
    tries: int = 0
    not_before: float = 0.0
    child: RunProcess | None = None
    follower: Follower | None = None

    @property
    def begun(self) -> bool:
        """Whether there is something to resume."""
        return (self.path / "run.toml").exists()

    @property
    def reserved(self) -> float:
        """Dollars that it has spent; while it runs, the most that it may have spent at its end."""
        lives = self.state in ("running", "elsewhere")
        return max(self.spent, self.limit) if lives else self.spent

    def look(self) -> LiveRun:
        """Read the state of a begun run from its own files; update ``spent``."""
        self.follower = self.follower or Follower(self.path)
        live = self.follower.look()
        self.spent = live.dollars or self.spent
        self.unpriced = live.dollars is None
        return live


@dataclass(slots=True)
class _Provider:
    strikes: int = 0
    paused_until: float = 0.0


class Sweep:
    """One sweep over the runs of a suite, in one folder. Raises nothing for a run that fails."""

    def __init__(
        self,
        plan: Plan,
        *,
        concurrent: int,
        max_dollars: float | None = None,
        say: Callable[[str], None],
        show: Callable[["Sweep"], None] = lambda sweep: None,
        command: Sequence[str] = HARNESS,
        patience: SweepRetries = SweepRetries(),
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder, self.concurrent, self.max_dollars = plan.folder, concurrent, max_dollars
        runs = [one.run for one in plan.estimates]
        self.slots = [SweepRun(r, plan.folder / r.name, plan.offers[r.asked.agent]) for r in runs]
        self._command, self._patience = command, patience
        self._say, self._show = unbreakable(say), unbreakable(show)
        self._now, self._sleep = now, sleep
        self._providers = defaultdict[str, _Provider](_Provider)
        self._signals = 0
        for slot in self.slots:
            self._find(slot)
        self.share = self._share()

    @property
    def counts(self) -> Counter[SweepRunState]:
        """How many runs are in which state."""
        return Counter(slot.state for slot in self.slots)

    @property
    def running(self) -> list[SweepRun]:
        """The runs that are child processes of ours now."""
        return [slot for slot in self.slots if slot.state == "running"]

    @property
    def spent(self) -> float:
        """Known dollars of all its runs so far."""
        return sum(slot.spent for slot in self.slots)

    @property
    def was_stopped(self) -> bool:
        """Whether somebody asked it to end."""
        return self._signals > 0

    def run(self) -> None:
        """Take every run to its end. On Ctrl-C, SIGTERM or a lost terminal, interrupt all runs.

        The second time, kill them.
        """
        handled = 0
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            while True:
                if self._signals > handled:
                    handled = self._signals
                    self._interrupt(hard=handled > 1)
                self._reap()
                if not self.was_stopped:
                    self._find_elsewhere()
                    self._start()
                self._show(self)
                counts = self.counts
                more = counts["waiting"] + counts["elsewhere"]
                if not counts["running"] and (self.was_stopped or not more):
                    return
                self._sleep(self._patience.look_s)
        finally:
            for slot in self.running:
                if slot.child is not None:
                    slot.child.send(signal.SIGKILL)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        self._signals += 1

    def _interrupt(self, *, hard: bool) -> None:
        running = self.running
        if running:
            words = "killing" if hard else "stopping (Ctrl-C again kills)"
            self._say(f"{words}: {len(running)} runs")
        for slot in running:
            if slot.child is not None:
                slot.child.send(signal.SIGKILL if hard else signal.SIGINT)

    def _find(self, slot: SweepRun) -> None:
        """Set the state of a run from its files on disk. The run is not a child of ours now."""
        slot.state = "waiting"
        try:
            if slot.begun:
                _ = Run.open(slot.path).asked  # raises if run.toml was edited since
            if (outcome := Run(slot.path).outcome) is not None:
                slot.state = "done" if outcome.valid else "invalid"
                search, test = number(outcome.search_score), number(outcome.score)
                slot.message = f"search {search}, test {test}"
                if outcome.spent is not None:
                    spent = totals_of(outcome.spent)
                    slot.spent, slot.unpriced = spent.dollars, spent.unpriced > 0
                return
        except DAMAGE as error:
            slot.state, slot.message = "refused", str(error).partition("\n")[0]
            return
        if not slot.begun:
            slot.limit = (slot.run.asked.dollars or slot.limit) if slot.offer.provider else 0.0
            return
        live = slot.look()
        slot.limit = live.max_dollars or 0.0
        if live.state == "damaged":
            slot.state, slot.message = "refused", live.problem
        elif live.state == "running":
            slot.state = "elsewhere"
        elif self.max_dollars is not None and slot.offer.provider and not slot.limit:
            slot.state = "refused"
            slot.message = "it began without a limit of dollars, and cannot be given one now"

    def _find_elsewhere(self) -> None:
        for slot in self.slots:
            if slot.state == "elsewhere":
                self._find(slot)

    def _share(self) -> float | None:
        """Divide the dollars left among the runs without a limit of their own; return the share."""
        if self.max_dollars is None:
            return None
        open_slots = [s for s in self.slots if s.state == "waiting" and s.offer.provider]
        bare = [s for s in open_slots if not s.limit]
        if not bare:
            return None
        kept = sum(max(0.0, s.limit - s.spent) for s in open_slots)
        share = (self.max_dollars - self.spent - kept) / len(bare)
        for slot in bare:
            slot.limit = share
            if share < CENT:
                slot.state = "unaffordable"
        return share

    def _start(self) -> None:
        now = self._now()
        running = len(self.running)
        left = float("inf")
        if self.max_dollars is not None:
            left = self.max_dollars - sum(slot.reserved for slot in self.slots)
        for slot in self.slots:
            if running == self.concurrent:
                return
            if slot.state != "waiting" or slot.not_before > now:
                continue
            provider = self._providers[slot.offer.provider]
            if provider.strikes >= self._patience.strikes:
                slot.state = "paused"
            elif provider.paused_until > now:
                continue
            elif (need := max(0.0, slot.limit - slot.spent)) <= left:
                running += self._begin(slot)
                left -= need
            elif not running:
                slot.state, slot.message = "unaffordable", f"${left:.2f} are left"

    def _begin(self, slot: SweepRun) -> bool:
        """Start or resume a run. Returns False if something else is in its directory."""
        if slot.begun:
            arguments = ["resume", str(slot.path)]
        else:
            run, file = slot.run, self.folder / REQUESTS / f"{slot.run.name}.toml"
            asked = run.asked.model_copy(update={"dollars": slot.limit or None})
            write_asked(file, asked)
            given = {"--asked": file, "--runs-dir": self.folder, "--name": run.name}
            arguments = ["run", *(f"{k}={v}" for k, v in given.items()), *run.options]
            if not _clear_half_made(slot.path):
                slot.state, slot.message = "refused", f"{slot.path} is in the way and no run"
                return False
        log = self.folder / LOGS / f"{slot.path.name}.log"
        slot.child = RunProcess([*self._command, *arguments], log)
        slot.tries += 1
        slot.state, slot.message = "running", ""
        self._say(f"{'resumed' if arguments[0] == 'resume' else 'started'}  {slot.path.name}")
        return True

    def _reap(self) -> None:
        for slot in self.running:
            if slot.child is not None and (code := slot.child.poll()) is not None:
                words = slot.child.last_words()
                slot.child = None
                self._find(slot)
                if slot.state == "waiting":
                    slot.message = words
                    self._went_wrong(slot, code)
                else:
                    self._providers[slot.offer.provider].strikes = 0
                if slot.state != "waiting":
                    self._say(f"{slot.state}  {slot.path.name}  {slot.message}")

    def _went_wrong(self, slot: SweepRun, code: int) -> None:
        """Decide what to do with a run that ended without a result."""
        patience = self._patience
        if self.was_stopped or code in STOPPED:
            slot.state = "interrupted"
        elif code == ConfigError.exit_code:
            slot.state = "refused"
        elif code == ProviderError.exit_code and slot.offer.provider:
            slot.tries -= 1
            self._pause(slot)
        elif slot.tries > patience.retries:
            slot.state = "failed"
        else:
            wait_s = patience.back_off_s * 2 ** (slot.tries - 1)
            slot.not_before = self._now() + wait_s
            self._say(f"again in {wait_s:.0f} s  {slot.path.name}  exit {code}: {slot.message}")

    def _pause(self, slot: SweepRun) -> None:
        now, patience = self._now(), self._patience
        provider = self._providers[slot.offer.provider]
        if provider.paused_until > now:
            return  # another of its runs has started the pause
        pause_s = min(patience.pause_s * 2**provider.strikes, patience.longest_pause_s)
        provider.strikes += 1
        provider.paused_until = now + pause_s
        last = provider.strikes >= patience.strikes
        then = "given up in this sweep" if last else f"its runs pause for {pause_s:.0f} s"
        self._say(f"{slot.offer.provider}: {then}; {slot.path.name} said: {slot.message}")


def _clear_half_made(path: Path) -> bool:
    """Remove the directory of a run that was killed while making it; False if it holds more.

    No other process makes runs in a sweep's folder: we hold its lock, and children end with us.
    """
    if not path.exists():
        return True
    known = all(p.name in ("lock.json", "nodes") or p.name.startswith(".") for p in path.iterdir())
    if not known or any((path / "nodes").glob("*")):
        return False
    shutil.rmtree(path)
    return True
