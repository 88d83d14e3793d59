"""``harness sweep``: runs a suite. ``harness.sweeps`` plans and runs it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from harness.base.commands import command as hint
from harness.cli.common import (
    RUNS_DIR,
    AgentsFile,
    AsJson,
    RunsDir,
    TasksDir,
    absolute,
    guarded,
    print_json,
)
from harness.cli.sweep_screen import SweepScreen
from harness.sweeps import plan as plans
from harness.sweeps import words
from harness.sweeps.sweep import Sweep


@guarded
def command(
    suite: Annotated[Path, typer.Argument(metavar="SUITE.toml", help="Which runs.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would take.")
    ] = False,
    max_dollars: Annotated[
        float | None, typer.Option(min=0.01, help="Start no run that could spend more in all.")
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option(min=1, help="Runs at once (default: two for each GPU, or 1).")
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out runs that cannot be made here.")
    ] = False,
    agents_file: AgentsFile = None,
    tasks_dir: TasksDir = None,
    runs_dir: RunsDir = RUNS_DIR,
    json: AsJson = False,
) -> int:
    """Run a whole suite, several runs at once; the same command again goes on with it.

    Its run directories are in a folder of the suite's name under --runs-dir.
    """
    if agents_file is not None:  # by the environment: each run is a separate process
        os.environ["HARNESS_AGENTS"] = str(absolute(agents_file))
    plan = plans.make_plan(suite, runs_dir)
    gpus = plans.gpus_here()
    # A run holds a GPU only while it evaluates; another run can use the GPU while it writes.
    concurrent = concurrent or 2 * gpus or 1
    obstacles = plan.missing if dry_run else plan.obstacles(gpus)
    if skip_missing:
        for why, n in plans.by_count(obstacles):
            typer.echo(f"left out: {n} runs, {why}", err=True)
        plan = plan.without(obstacles)
    if dry_run:
        if json:
            print_json(words.plan_as_json(plan, concurrent, gpus))
        else:
            typer.echo("\n".join(words.plan_table(plan, concurrent, gpus, max_dollars)))
        return 0
    if not skip_missing:
        plans.refuse_obstacles(obstacles)
    if max_dollars is not None:
        plans.refuse_unknown_prices(plan, max_dollars)
    with plans.held(plan), SweepScreen() as screen:
        sweep = Sweep(
            plan,
            concurrent=concurrent,
            max_dollars=max_dollars,
            say=screen.say,
            show=screen.show,
        )
        for line in words.opening(sweep):
            screen.say(line)
        sweep.run()
    if json:
        print_json(words.as_json(sweep))
    else:
        again = hint(
            "sweep",
            suite,
            runs_dir=runs_dir,
            max_dollars=max_dollars,
            skip_missing=skip_missing,
            agents_file=agents_file,
        )
        typer.echo("\n".join(words.summary(sweep, again)))
    return words.exit_code(sweep)
