"""harness run"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.cli.common import (
    RUNS_DIR,
    AsJson,
    ByteCounts,
    Data,
    RunsDir,
    chosen_data,
    guarded,
    parse_duration,
    print_json,
)


@guarded
def command(
    task: Annotated[str, typer.Option(help="What is to be written, e.g. lra/listops.")],
    agent: Annotated[str, typer.Option(help="Who writes: reference, random, tpe.")] = "reference",
    policy: Annotated[str, typer.Option(help="The search: greedy, one_shot.")] = "greedy",
    profile: Annotated[
        str, typer.Option(help="The size: smoke (2 CPU cores), short (a GPU), paper, test.")
    ] = "smoke",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Nodes to evaluate [default: the profile's].")
    ] = None,
    time: Annotated[str, typer.Option(help="Start no node after this long.")] = "24h",
    seed: Annotated[int, typer.Option(min=0, help="Decides everything random.")] = 0,
    sandbox: Annotated[
        Literal["auto", "docker", "bubblewrap", "process"],
        typer.Option(help="Where submissions run; process does not isolate."),
    ] = "auto",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A policy parameter: greedy.num_drafts=3.")
    ] = None,
    data: Data = None,
    byte_counts: ByteCounts = None,
    runs_dir: RunsDir = RUNS_DIR,
    json: AsJson = False,
) -> int:
    """Search: an agent writes submissions, a blind judge scores them, the best is tested once."""
    from harness.cli.screen import Screen
    from harness.runs.launch import Options, start

    options = Options(
        task=task,
        agent=agent,
        policy=policy,
        profile=profile,
        runs_dir=runs_dir,
        steps=steps,
        time_s=parse_duration(time),
        seed=seed,
        sandbox=sandbox,
        settings=tuple(setting or ()),
        data=chosen_data(data, byte_counts),
    )
    with Screen() as screen:
        result = start(options, progress=screen.progress, observe=screen.observe)
    return report(result, as_json=json)


def report(result: dict[str, Any], *, as_json: bool) -> int:
    """Print how a run ended; return the exit code."""
    if as_json:
        print_json(result)
    else:
        from harness.report.summary import summarize

        typer.echo(summarize(result))
    return 0 if result["valid"] else 1


def run_path(text: Path) -> Path:
    """Return the run meant by a path or by a bare name under runs/."""
    return text if text.exists() or len(text.parts) > 1 else RUNS_DIR / text
