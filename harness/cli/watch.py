"""``harness watch``: shows live runs. ``harness.report.watching`` reads them."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from json import dumps
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from harness.cli.common import RUNS_DIR, AsJson, guarded
from harness.cli.runs import RunPlaces
from harness.report.terminal import stdout
from harness.report.watching import Watch, lines

EVERY_S = 1.0


@guarded
def command(
    places: RunPlaces = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and leave.")] = False,
    json: AsJson = False,
) -> int:
    """Watch runs: best so far, step, time, GPU, state. It only reads; q leaves.

    With --json it prints one JSON object per line, once a second. Without a terminal it looks once.
    """
    watch = Watch(places or [p for p in (RUNS_DIR,) if p.exists()])
    if json:
        _objects(watch, once=once)
    elif once or not sys.stdout.isatty():
        _table(watch)
    else:
        _live(watch)
    return 0


def _objects(watch: Watch, *, once: bool) -> None:
    while True:
        runs = [asdict(live) for live in watch.look()]
        sys.stdout.write(dumps({"format": 1, "runs": runs}) + "\n")
        sys.stdout.flush()
        if once:
            return
        time.sleep(EVERY_S)


def _table(watch: Watch) -> None:
    for line in lines(watch.look(), width=stdout().width):
        typer.echo(line)


def _live(watch: Watch) -> None:
    console = Console(highlight=False)
    with (
        _single_keys() as pressed,
        Live(console=console, screen=True, auto_refresh=False) as live,
        suppress(KeyboardInterrupt),
    ):
        key = ""
        while "q" not in key:
            size = console.size
            text = lines(watch.look(), width=size.width, height=size.height)
            live.update(Text("\n".join(text), no_wrap=True, overflow="crop"), refresh=True)
            key = pressed(EVERY_S)


@contextmanager
def _single_keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits at most the given seconds for keys, which need no Enter."""
    keyboard = [sys.stdin] if sys.stdin.isatty() else []

    def pressed(seconds: float) -> str:
        if not select.select(keyboard, [], [], seconds)[0]:
            return ""
        return os.read(sys.stdin.fileno(), 64).decode(errors="replace")

    if not keyboard:
        yield pressed
        return

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
