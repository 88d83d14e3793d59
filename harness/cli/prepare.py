"""``harness prepare``: makes a task's data. The task's ``prepare`` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from harness.base.paths import data_root
from harness.cli.common import (
    AsJson,
    ByteCountsOption,
    Data,
    TasksDir,
    chosen_data,
    guarded,
    print_json,
)
from harness.cli.screen import Screen
from tasks.definition import Manifest, Value
from tasks.hidden import PARAMETER
from tasks.spec import find_task


@guarded
def command(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Whose data, e.g. lra/text.")],
    profile: Annotated[str, typer.Option(help="The size: smoke, short, paper, test.")] = "smoke",
    data: Data = None,
    byte_counts: ByteCountsOption = None,
    shards: Annotated[
        int | None, typer.Option(min=1, help="How many climbmix shards to train on.")
    ] = None,
    tasks_dir: TasksDir = None,
    json: AsJson = False,
) -> int:
    """Make a task's data ahead of time, and say what is in them.

    A folder given as --data holds the data as they are published (docs/reference/tasks.md), or, for
    autoresearch, .txt, .md, .jsonl or .parquet files.
    """
    chosen = find_task(task)
    overrides: dict[str, Value] = {**chosen_data(chosen, data, byte_counts)}
    if shards is not None:
        overrides["shards"] = shards
    with Screen() as screen:
        path, manifest = chosen.prepare(profile, data_root(), screen.progress, overrides)
    if json:
        print_json(
            {
                "format": 1,
                "task": chosen.name,
                "profile": profile,
                "path": str(path),
                "hash": manifest.hash,
                "manifest": manifest.model_dump(mode="json"),
            }
        )
    else:
        for name, text in _facts(path, manifest):
            typer.echo(f"{name:<14} {text}")
    return 0


def _facts(path: Path, manifest: Manifest) -> list[tuple[str, str]]:
    """Return the facts to print about prepared data, as (name, text)."""
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    unit = {"train": "tokens"} if "bos" in manifest.shape else {}
    facts = [
        ("data", str(path)),
        ("size", f"{size / 1e6:,.1f} MB in {len(manifest.files)} files"),
        ("shape", ", ".join(f"{name} {value:,}" for name, value in manifest.shape.items())),
    ]
    facts += [(s, f"{n:,} {unit.get(s, 'rows')}") for s, n in manifest.rows.items()]
    for name, value in manifest.parameters.items():
        if name.startswith("overlap_"):
            split = name.removeprefix("overlap_")
            text = f"{100 * float(value):.2f} % of the runs of 13 words in {split} are in train"
            facts.append(("overlap", text))
        elif name == PARAMETER:
            text = f"{value}: search and test are drawn with it (docs/concepts/threat-model.md)"
            facts.append(("hidden key", text))
        elif name not in manifest.shape and name not in manifest.rows:
            facts.append((name, str(value)))
    unit_of_score = " bits per byte" if "bos" in manifest.shape else ""
    facts += [(n, f"{v:.4f}{unit_of_score}") for n, v in manifest.baselines.items()]
    return [*facts, ("hash", manifest.hash)]
