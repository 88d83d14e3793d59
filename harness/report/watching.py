"""All runs at some places, looked at again and again; and as lines that fit a terminal."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

from rich.cells import cell_len, set_cell_size

from harness.errors import GpuUnavailableError
from harness.report.standing import Follower, Standing
from harness.runs.rundir import find_runs
from sandboxes import gpu_locks
from sandboxes.gpu_pool import GpuPool

ORDER = ("running", "failed", "damaged", "killed", "interrupted", "finished")

GIVES_WAY = ("agent", "task", "policy")
"""Columns that are cut where a line is too long, the last first."""

LEAST = 6
LEFT = ("agent", "task", "policy", "state")


class Watch:
    """Follows the runs at some places, those that appear later too."""

    def __init__(self, places: Iterable[Path]) -> None:
        self._places = list(places)
        self._followers: dict[Path, Follower] = {}
        self._gpus = GpuPool().gpus

    def look(self) -> list[Standing]:
        """Return how every run stands, the living first. Raises ConfigError for a bad place."""
        paths = dict.fromkeys([*find_runs(self._places), *self._strays()])
        self._followers = {p: self._followers.get(p) or Follower(p) for p in paths}
        found = [follower.look() for follower in self._followers.values()]
        owners = self._owners()
        for standing in found:
            standing.gpu = owners.get(standing.pid, "") if standing.state == "running" else ""
        return sorted(found, key=lambda s: (ORDER.index(s.state), s.run))

    def _strays(self) -> list[Path]:
        """Return folders that look like runs and have no run.toml: half made, or damaged."""
        found = []
        for place in self._places:
            for file in place.glob("*/lock.json"):
                if not (file.parent / "run.toml").exists():
                    found.append(file.parent)
        return found

    def _owners(self) -> dict[int | None, str]:
        """Return process → its GPUs, by what stands in the lock files."""
        found: dict[int | None, list[str]] = defaultdict(list)
        for gpu in self._gpus:
            with suppress(GpuUnavailableError):
                found[gpu_locks.named(gpu.uuid).pid].append(str(gpu.minor))
        return {pid: ",".join(numbers) for pid, numbers in found.items() if pid is not None}


def lines(standings: Sequence[Standing], *, width: int, height: int | None = None) -> list[str]:
    """Return a heading and a line a run, at most ``width`` wide and ``height`` many."""
    if not standings:
        return ["No runs here yet."]
    shown = standings
    if height is not None:
        taken = accumulate(1 + len(s.training) for s in standings)
        fits = sum(lines <= height - 2 for lines in taken)
        shown = standings if fits == len(standings) else standings[: max(1, fits - 1)]
    rows = [_cells(s) for s in shown]
    names = [n for n in rows[0] if n in (*LEFT, "best", "step") or any(row[n] for row in rows)]
    widths = {n: max(cell_len(n), *(cell_len(row[n]) for row in rows)) for n in names}
    over = sum(widths.values()) + 2 * (len(names) - 1) - width
    for name in reversed(GIVES_WAY):
        cut = min(max(0, over), widths[name] - LEAST) if widths[name] > LEAST else 0
        widths[name] -= cut
        over -= cut
    text = [_line({n: n for n in names}, widths, width)]
    for run, row in zip(shown, rows, strict=True):
        text.append(_line(row, widths, width))
        text += [_fit(f"  {c.words(short)}", width) for c in run.training]
    if len(shown) < len(standings):
        text.append(f"… and {len(standings) - len(shown)} more")
    return text


def _line(row: dict[str, str], widths: dict[str, int], width: int) -> str:
    cells = []
    for name, size in widths.items():
        text = "".join(c if c.isprintable() else " " for c in row[name])
        if name not in LEFT:
            text = text.rjust(size)
        elif cell_len(text) > size:
            text = set_cell_size(text, size - 1) + "…"
        cells.append(set_cell_size(text, size))
    return _fit("  ".join(cells), width)


def _fit(text: str, width: int) -> str:
    return set_cell_size("".join(c if c.isprintable() else " " for c in text), width).rstrip()


def _cells(run: Standing) -> dict[str, str]:
    """Return the cells of a run's line; an empty one where nothing is known."""
    if run.state == "damaged":
        empty = dict.fromkeys(_cells(Standing("", state="killed")), "")
        return {**empty, "agent": Path(run.run).name, "state": f"damaged: {run.problem}"[:40]}
    state: str = run.state
    if run.state == "running":
        state = run.doing or "starting"
    if run.stop and run.state != "finished":
        state = f"{state}, stopping"
    if run.state == "finished":
        state = "finished" if run.valid else "invalid"
    return {
        "agent": run.agent,
        "task": run.task,
        "policy": run.policy,
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
    return "?" if dollars is None else f"{dollars:.2f}"


def short(seconds: float) -> str:
    """Return a duration in four characters or so: 45s, 12m, 3.2h, 2.5d."""
    if seconds < 100:
        return f"{seconds:.0f}s"
    if seconds < 6000:
        return f"{seconds / 60:.0f}m"
    hours = seconds / 3600
    return f"{hours:.3g}h" if hours < 100 else f"{hours / 24:.3g}d"
