"""``harness gc``: removes leftovers and old runs. ``harness.search.leftovers`` finds leftovers."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import Cancelled, ConfigError
from harness.cli.common import RUNS_DIR, AsJson, RunsDir, guarded, print_json
from harness.cli.edge import each
from harness.launch.garbage import beyond, delete
from harness.search.leftovers import collect, stale_stages
from harness.store.places import find_runs


@guarded
def command(
    runs_beyond: Annotated[
        str | None, typer.Option(help="Delete the oldest finished runs beyond this size: 10GB.")
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Delete unfinished runs, too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    runs_dir: RunsDir = RUNS_DIR,
    yes: Annotated[bool, typer.Option("--yes", help="Delete runs without asking.")] = False,
    json: AsJson = False,
) -> int:
    """Remove what dead processes left: sandboxes, scratch; on request old runs."""
    doomed: list[tuple[Path, int]] = []
    if runs_beyond is not None:
        doomed = beyond(find_runs([runs_dir]), _bytes(runs_beyond), unfinished=unfinished)
    for path, size in doomed:
        typer.echo(f"{path}  {size / 1e6:.1f} MB", err=True)
    runs = [path for path, _ in doomed]
    if dry_run:
        found = [*map(str, stale_stages()), *map(str, runs)]
        return _say("would remove", found, 0, as_json=json)
    agreed = not runs or yes or _asked(len(runs))
    removed = collect()
    deleted, failures = each(runs if agreed else [], delete)
    code = failures[-1] if failures else 0
    return _say("removed", [*removed, *map(str, deleted)], code, as_json=json)


def _asked(count: int) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{count} runs would be deleted, and there is no terminal to ask at.",
            remedy="--yes deletes them, --dry-run only lists them",
        )
    try:
        return typer.confirm(f"Delete these {count} runs?", err=True)
    except typer.Abort:
        raise Cancelled("Interrupted; nothing was removed.") from None


def _say(verb: str, things: list[str], code: int, *, as_json: bool) -> int:
    if as_json:
        print_json({"format": 1, verb.replace(" ", "_"): things})
        return code
    for thing in things:
        typer.echo(f"{verb} {thing}")
    typer.echo(f"{verb}: {len(things)} things" if things else "nothing to remove")
    return code


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if not match:
        raise ConfigError(f"{text!r} is not a size.", remedy="for example 500MB, 10GB")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2] or " "))
