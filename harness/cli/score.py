"""harness score"""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.base.errors import ConfigError
from harness.cli.common import (
    AsJson,
    ByteCounts,
    Data,
    TasksDir,
    chosen_data,
    guarded,
    print_json,
)
from harness.cli.score_screen import ScoreScreen
from harness.launch.by_hand import ByHand, read_submission
from harness.report.summary import describe_by_hand
from tasks.spec import find_task


@guarded
def command(
    path: Annotated[Path, typer.Argument(help="The submission: model.py, or its folder.")],
    task: Annotated[str, typer.Option(help="What it is for, e.g. lra/listops.")],
    profile: Annotated[str, typer.Option(help="The size: smoke, short, paper, test.")] = "smoke",
    split: Annotated[
        Literal["search", "test"], typer.Option(help="Which hidden rows it is served.")
    ] = "search",
    seed: Annotated[int, typer.Option(min=0, help="The seed it is trained with.")] = 0,
    sandbox: Annotated[
        Literal["auto", "docker", "bubblewrap", "process"],
        typer.Option(help="Where it runs; process does not isolate."),
    ] = "auto",
    data: Data = None,
    byte_counts: ByteCounts = None,
    repeat: Annotated[
        int, typer.Option(min=1, help="Train and score it so often, with seeds from --seed on.")
    ] = 1,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Score the task's first reference design beside it.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Score the exported model in fresh processes that share no memory."
        ),
    ] = False,
    tasks_dir: TasksDir = None,
    log: Annotated[Path | None, typer.Option(help="Keep what it prints in this file.")] = None,
    json: AsJson = False,
) -> int:
    """Train one submission in a sandbox and score it, as a search would."""
    chosen = find_task(task)
    files = read_submission(path, chosen)
    if log is not None:
        log.open("ab").close()  # that it cannot be written is said now, not after the training
    if baseline and not chosen.designs():
        raise ConfigError(f"Task {chosen.name} has no reference design.", remedy="no --baseline")
    with (
        ScoreScreen() as screen,
        closing(
            ByHand(
                chosen,
                profile,
                split,
                sandbox,
                chosen_data(chosen, data, byte_counts),
                screen,
                strict=strict,
            )
        ) as bench,
    ):
        scores = bench.score(files, seed=seed, repeat=repeat, log=log)
        beside = None
        if baseline:
            screen.say("and the baseline, on this machine")
            beside = bench.score(chosen.designs()[0].files, seed=seed, repeat=repeat)
    if json:
        print_json(bench.as_result(path, seed, scores, beside))
    else:
        typer.echo(describe_by_hand(scores, beside))
    return 0 if all(score.valid for score in scores) else 1
