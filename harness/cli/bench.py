"""``harness bench mechanisms``: prints the costs that ``tasks.lra.bench`` measures."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.base.errors import ConfigError
from harness.cli.common import AsJson, guarded, print_json
from harness.cli.edge import INTERRUPTED
from harness.report import mechanisms as report
from tasks.lra import bench
from tasks.lra.bench import BenchCell, Machine
from tasks.lra.gallery import NAMES, source_of

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """What attention mechanisms cost on this machine."""


@app.command("mechanisms")
@guarded
def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Mechanisms (default: all).")
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="512..16384",
            help="Row lengths, doubling, or a list with commas (default: 512..16384 on a GPU, "
            "256..2048 on a CPU).",
        ),
    ] = None,
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="Default: a GPU where torch sees one.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Write a plot of time and memory.")
    ] = None,
    json: AsJson = False,
) -> int:
    """Time and memory of each mechanism of the gallery, forward and backward, by row length.

    Ctrl-C ends it with what was measured so far.
    """
    chosen = names or list(NAMES)
    for name in chosen:
        source_of(name)
    wanted = bench.parse_lengths(lengths) if lengths else None
    if plot is not None:
        _check_place(plot)
    machine: Machine | None = None
    cells: list[BenchCell] = []
    complete = False
    try:
        for found in bench.measure(chosen, wanted, device, _progress):
            if isinstance(found, Machine):
                machine = found
            else:
                cells.append(found)
        complete = True
    except KeyboardInterrupt:
        pass
    finally:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
    if machine is None:
        raise KeyboardInterrupt
    if json:
        print_json(report.as_json(machine, cells, complete))
    else:
        sys.stdout.write(report.table(machine, cells))
    if plot is not None:
        plot.write_text(report.plot(machine, cells))
        sys.stderr.write(f"The plot is in {plot}\n")
    if not complete:
        sys.stderr.write("Interrupted: the table is not whole.\n")
    return 0 if complete else INTERRUPTED


def _check_place(plot: Path) -> None:
    """Check before the measurement, which takes minutes. Raises ConfigError: not writable."""
    if not plot.parent.is_dir() or plot.is_dir():
        raise ConfigError(
            f"{plot} cannot be written.", remedy="name a file in a folder that is there"
        )


def _progress(done: int, total: int, cell: BenchCell) -> None:
    words = f"{done + 1}/{total}  {cell.mechanism} at {cell.length}"
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{words}")
    else:
        sys.stderr.write(words + "\n")
    sys.stderr.flush()
