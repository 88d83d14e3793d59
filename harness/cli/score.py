"""``harness score``: scores one submission. ``harness.launch.by_hand`` does the work."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.base.errors import ConfigError
from harness.base.watching import unbreakable
from harness.cli.common import (
    RUNS_DIR,
    AsJson,
    ByteCountsOption,
    Data,
    RunsDir,
    TasksDir,
    absolute,
    chosen_data,
    guarded,
    print_json,
)
from harness.cli.names import EXECUTORS, SANDBOXES, one_of
from harness.cli.score_screen import ScoreScreen
from harness.core.asked import Asked
from harness.launch.by_hand import ByHand, as_result, read_submission
from harness.report.summary import describe_by_hand
from scorers.score import Score
from tasks.spec import Task, find_task


@guarded
def command(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="The submission: model.py, or its folder.")
    ],
    task: Annotated[str, typer.Option(help="What it is for, e.g. lra/listops.")],
    profile: Annotated[str, typer.Option(help="The size: smoke, short, paper, test.")] = "smoke",
    split: Annotated[
        Literal["search", "test"], typer.Option(help="Which hidden rows it is served.")
    ] = "search",
    seed: Annotated[int, typer.Option(min=0, help="The seed it is trained with.")] = 0,
    sandbox: Annotated[
        str, one_of(SANDBOXES, help="Where it runs; process does not isolate.")
    ] = "auto",
    executor: Annotated[
        str, one_of(EXECUTORS, help="Who finds a place for it: local is this machine.")
    ] = "local",
    data: Data = None,
    byte_counts: ByteCountsOption = None,
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
    runs_dir: RunsDir = RUNS_DIR,
    log: Annotated[Path | None, typer.Option(help="Keep what it prints in this file.")] = None,
    json: AsJson = False,
) -> int:
    """Train one submission in a sandbox, score it as a search would, and keep the score."""
    chosen = find_task(task)
    asked = Asked(
        task=chosen.name,
        profile=profile,
        seed=seed,
        sandbox=sandbox,
        executor=executor,
        data=chosen_data(chosen, data, byte_counts),
    )
    files = read_submission(path, chosen)
    if log is not None:
        log.open("ab").close()  # fails now, not after the training, if it cannot be written
    designs = chosen.designs(profile)
    if baseline and not designs:
        raise ConfigError(f"Task {chosen.name} has no reference design.", remedy="no --baseline")
    kept: list[Path] = []

    def times(name: str, files: Mapping[str, str]) -> Iterator[Score]:
        for index in range(repeat):
            score, folder = bench.keep(runs_dir, name, files, split=split, seed=seed + index)
            kept.append(folder)
            if repeat > 1:
                outcome = score.reason if score.score is None else f"{score.score:.4f}"
                screen.say(f"{index + 1} of {repeat}: {outcome}")
            yield score

    with ScoreScreen() as screen, ByHand(asked, screen, strict=strict) as bench:
        scores = list(times(_name(path, chosen), files))
        if log is not None:
            for index, folder in enumerate(kept):
                place = log if repeat == 1 else log.with_suffix(f".{index}{log.suffix}")
                unbreakable(_copy)(folder / "stdout.log", place)
        beside = None
        if baseline:
            screen.say("and the baseline, on this machine")
            beside = list(times(designs[0].name, designs[0].files))
    if json:
        print_json(as_result(asked, path, scores, beside, kept))
    else:
        typer.echo(describe_by_hand(scores, beside))
        typer.echo(f"kept: {kept[0]}" + (f" and {len(kept) - 1} more" if kept[1:] else ""))
    return 0 if all(score.valid for score in scores) else 1


def _name(path: Path, task: Task) -> str:
    """Return a submission's name: its folder's, or its file's if the file has a name of its own."""
    place = absolute(path)
    if place.name in task.definition.files:  # its folder's name says more than model.py
        place = place.parent
    return place.stem


def _copy(file: Path, to: Path) -> None:
    shutil.copyfile(file, to)
