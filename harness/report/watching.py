"""All runs at some places, looked at again and again; and as lines that fit a terminal."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from rich.cells import cell_len, set_cell_size

from harness.base.durations import short
from harness.base.errors import GpuUnavailableError
from harness.base.text import one_line
from harness.report.terminal import named
from harness.store.follower import Follower, Standing
from harness.store.places import scan
from sandboxes import gpu_locks
from sandboxes.gpu_pool import GpuPool

ORDER = ("running", "failed", "damaged", "killed", "interrupted", "finished")

RUN = ("run.toml", "lock.json")

NAMES = ("agent", "task", "policy")
ALWAYS = ("seed", "best", "test", "step", "time", "state")
YIELDING = ("tokens", "gpu", "$", "time", "seed")
"""Columns that a terminal does without on which they leave no room, the first first."""
LEAST = 6
"""Characters beside them."""

LONGEST = 1000
"""Characters of a name or of a reason that are shown."""


class Watch:
    """Follows the runs at some places, those that appear later too."""

    def __init__(self, places: Iterable[Path]) -> None:
        self._places = list(places)
        self._followers: dict[Path, Follower] = {}
        self._gpus = GpuPool().gpus

    def look(self) -> list[Standing]:
        """Return how every run stands, the living first. Raises ConfigError for a bad place."""
        # Those that look like runs and have no run.toml, too: half made, or damaged.
        paths = [p for p in scan(self._places) if any((p / name).exists() for name in RUN)]
        self._followers = {p: self._followers.get(p) or Follower(p) for p in paths}
        found = [follower.look() for follower in self._followers.values()]
        owners = self._owners()
        for standing in found:
            standing.gpu = owners.get(standing.pid, "") if standing.state == "running" else ""
        return sorted(found, key=lambda s: (ORDER.index(s.state), s.run))

    def _owners(self) -> dict[int | None, str]:
        """Return process → its GPUs, by what stands in the lock files."""
        found: dict[int | None, list[str]] = defaultdict(list)
        for gpu in self._gpus:
            with suppress(GpuUnavailableError):
                found[gpu_locks.named(gpu.uuid).pid].append(str(gpu.minor))
        return {pid: ",".join(numbers) for pid, numbers in found.items() if pid is not None}


def lines(standings: Sequence[Standing], *, width: int, height: int | None = None) -> list[str]:
    """Return a heading and a run in a line, or two where its name is long; less than ``height``.

    What is wrong with damaged ones stands below.
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
    first, *blocks = named((head, *others), cells, width, left=("state",))
    for run, block in zip(standings, blocks, strict=True):
        block += [f"  {one_line(c.words(short), LONGEST)}" for c in run.training]
    damage = [one_line(f"damaged: {s.run}: {s.problem}", LONGEST) for s in standings if s.problem]
    if height is None:
        return [*first, *chain.from_iterable(blocks), *damage]
    return _cut(first, blocks, damage, max(2, height - 1))


def _cut(first: list[str], blocks: list[list[str]], below: list[str], most: int) -> list[str]:
    """Return as much as fits into so many lines, and how many blocks do not."""
    text, left = list(first), list(blocks)
    while left and len(text) + len(left[0]) + (len(left) > 1) <= most:
        text += left.pop(0)
    if left:
        return [*text, f"… and {len(left)} more"]
    return text + below[: most - len(text)]


def _names(rows: Sequence[Mapping[str, str]], width: int) -> tuple[str, list[str]]:
    """Return who the rows are and their heading: in columns, unless that makes one too long."""
    sizes = [max(map(cell_len, (n, *(row[n] for row in rows)))) for n in NAMES]
    if sum(sizes) > width // 2:
        return "  ".join(NAMES), ["  ".join(filter(None, (row[n] for n in NAMES))) for row in rows]
    aligned = ["  ".join(map(set_cell_size, t, sizes)) for t in (NAMES, *map(_who, rows))]
    return aligned[0], aligned[1:]


def _who(row: Mapping[str, str]) -> list[str]:
    return [row[name] for name in NAMES]


def _cells(run: Standing) -> dict[str, str]:
    """Return the cells of a run's line; an empty one where nothing is known."""
    if run.state == "damaged":
        empty = dict.fromkeys(_cells(Standing("", state="killed")), "")
        return {**empty, "agent": one_line(Path(run.run).name, LONGEST), "state": "damaged"}
    state: str = run.state
    if run.state == "running":
        state = "waiting for a GPU" if run.queued else run.doing or "starting"
    if run.stop and run.state != "finished":
        state = f"{state}, stopping"
    if run.state == "finished":
        state = "finished" if run.valid else "invalid"
    return {
        "agent": one_line(run.agent, LONGEST),
        "task": one_line(run.task, LONGEST),
        "policy": one_line(run.policy, LONGEST),
        "seed": "" if run.seed is None else str(run.seed),
        "best": "–" if run.best is None else f"{run.best:.4f}",
        "test": "" if run.score is None else f"{run.score:.4f}",
        "step": "" if run.steps is None else f"{run.step}/{run.steps}",
        "time": "" if run.time_s is None else f"{short(run.seconds)}/{short(run.time_s)}",
        "tokens": _thousands(run.tokens_in + run.tokens_out) if run.calls else "",
        "$": _dollars(run.dollars) if run.calls else "",
        "gpu": run.gpu,
        "state": state,
    }


def _thousands(count: int) -> str:
    if count < 1000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 1e6 else f"{count / 1e6:.1f}M"


def _dollars(dollars: float | None) -> str:
    if dollars is None:
        return "?"
    return "<0.01" if 0 < dollars < 0.01 else f"{dollars:.2f}"
