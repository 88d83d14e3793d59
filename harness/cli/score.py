"""harness score"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.common import AsJson, guarded, print_json


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
    log: Annotated[Path | None, typer.Option(help="Keep what it prints in this file.")] = None,
    json: AsJson = False,
) -> int:
    """Train one submission in a sandbox and score it, as a search would."""
    from harness.cli.score_screen import ScoreScreen
    from harness.runs.by_hand import as_result, read_submission, score_by_hand
    from tasks.spec import find_task

    chosen = find_task(task)
    files = read_submission(path, chosen)
    with ScoreScreen() as screen:
        score = score_by_hand(
            chosen, profile, split, files, seed=seed, sandbox=sandbox, log=log, screen=screen
        )
    if json:
        print_json(as_result(score, chosen, path, profile, seed))
    else:
        from harness.report.summary import describe

        typer.echo(describe(score))
    return 0 if score.valid else 1
