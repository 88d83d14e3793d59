"""Watches all runs in some places, and shows them as lines that fit a terminal.

harness/store/follower.py reads each run; harness/cli/watch.py repeats and draws.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from rich.cells import cell_len, set_cell_size

from harness.base.durations import short
from harness.base.errors import GpuUnavailableError
from harness.base.numbers import money, number, short_count
from harness.base.text import one_line
from harness.report.listing import LONGEST, damage
from harness.report.terminal import name_column
from harness.store.follower import Follower, LiveRun
from harness.store.places import scan
from sandboxes import gpu_locks
from sandboxes.gpu_pool import GpuPool

ORDER = ("running", "failed", "damaged", "killed", "interrupted", "finished")

RUN = ("run.toml", "lock.json")

NAMES = ("agent", "task", "policy")
ALWAYS = ("seed", "best", "test", "step", "time", "state")
YIELDING = ("tokens", "gpu", "$", "time", "seed")
"""Columns that are left out, in this order, until the rest fits a narrow terminal."""
LEAST = 6
"""Characters that the other columns leave for the name."""


class Watch:
    """Follows the runs in some places, including runs that appear later."""

    def __init__(self, places: Iterable[Path]) -> None:
        self._places = list(places)
        self._followers: dict[Path, Follower] = {}
        self._gpus = GpuPool().gpus

    def look(self) -> list[LiveRun]:
        """Return the state of every run, running ones first. Raises ConfigError for a bad place."""
        # Also folders with lock.json but without run.toml: half-made or damaged runs.
        paths = [p for p in scan(self._places) if any((p / name).exists() for name in RUN)]
        self._followers = {p: self._followers.get(p) or Follower(p) for p in paths}
        found = [follower.look() for follower in self._followers.values()]
        owners = self._owners()
        for live in found:
            live.gpu = owners.get(live.pid, "") if live.state == "running" else ""
        return sorted(found, key=lambda s: (ORDER.index(s.state), s.run))

    def _owners(self) -> dict[int | None, str]:
        """Return process id → its GPU numbers, as the lock files say."""
        found: dict[int | None, list[str]] = defaultdict(list)
        for gpu in self._gpus:
            with suppress(GpuUnavailableError):
                found[gpu_locks.recorded_owner(gpu.uuid).pid].append(str(gpu.minor))
        return {pid: ",".join(numbers) for pid, numbers in found.items() if pid is not None}


def lines(standings: Sequence[LiveRun], *, width: int, height: int | None = None) -> list[str]:
    """Return a heading and a line for each run, two if its name is long; fewer than ``height``.

    Below a run: a line for each of its trainings. At the end: what is wrong with damaged runs.
    """
    if not standings:
        return ["No runs here yet."]
    rows = [_cells(s) for s in standings]
    others = [n for n in rows[0] if n in ALWAYS or (n not in NAMES and any(r[n] for r in rows))]
    for name in YIELDING:
        sizes = [max(cell_len(n), *(cell_len(r[n]) for r in rows)) for n in others]
        if name in others and sum(sizes) + 2 * len(sizes) + LEAST > width:
            others.remove(name)
    head, names = _names(rows, width)
    cells = [(name, [row[n] for n in others]) for name, row in zip(names, rows, strict=True)]
    first, *blocks = name_column((head, *others), cells, width, left=("state",))
    for run, block in zip(standings, blocks, strict=True):
        block += [f"  {one_line(c.words(short), LONGEST)}" for c in run.training]
    below = damage(standings)
    if height is None:
        return [*first, *chain.from_iterable(blocks), *below]
    return _cut(first, blocks, below, max(2, height - 1))


def _cut(first: list[str], blocks: list[list[str]], below: list[str], most: int) -> list[str]:
    """Return at most ``most`` lines; the last says how many blocks did not fit, if any."""
    text, left = list(first), list(blocks)
    while left and len(text) + len(left[0]) + (len(left) > 1) <= most:
        text += left.pop(0)
    if left:
        return [*text, f"… and {len(left)} more"]
    return text + below[: most - len(text)]


def _names(rows: Sequence[Mapping[str, str]], width: int) -> tuple[str, list[str]]:
    """Return the heading and ``NAMES`` of each row, aligned if they fit in half the width."""
    who = [[row[name] for name in NAMES] for row in rows]
    sizes = [max(map(cell_len, column)) for column in zip(NAMES, *who, strict=True)]
    if sum(sizes) > width // 2:
        return "  ".join(NAMES), ["  ".join(filter(None, names)) for names in who]
    aligned = ["  ".join(map(set_cell_size, names, sizes)) for names in (NAMES, *who)]
    return aligned[0], aligned[1:]


def _cells(run: LiveRun) -> dict[str, str]:
    """Return the cells of a run's line; most are empty where nothing is known."""
    if run.state == "damaged":
        empty = dict.fromkeys(_cells(LiveRun("", state="killed")), "")
        return {**empty, "agent": one_line(Path(run.run).name, LONGEST), "state": "damaged"}
    state: str = run.state
    if run.state == "running":
        state = "waiting for a GPU" if run.queued else run.doing or "starting"
    if run.stop and run.state != "finished":
        state = f"{state}, stopping"
    if run.state == "finished":
        state = "finished" if run.valid else "invalid"
    spent = "?" if run.dollars is None else money(run.dollars)
    return {
        "agent": one_line(run.agent, LONGEST),
        "task": one_line(run.task, LONGEST),
        "policy": one_line(run.policy, LONGEST),
        "seed": "" if run.seed is None else str(run.seed),
        "best": number(run.best),
        "test": "" if run.score is None else number(run.score),
        "step": "" if run.steps is None else f"{run.step}/{run.steps}",
        "time": "" if run.time_s is None else f"{short(run.seconds)}/{short(run.time_s)}",
        "tokens": short_count(run.tokens_in + run.tokens_out) if run.calls else "",
        "$": spent if run.calls else "",
        "gpu": run.gpu,
        "state": state,
    }
