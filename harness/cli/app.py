"""All commands, in the order in which a new user meets them."""

from typing import Annotated

import typer

from harness import __version__
from harness.cli import (
    agents,
    baseline,
    bench,
    bundle,
    check,
    compare,
    doctor,
    export,
    features,
    gc,
    image,
    leaderboard,
    ls,
    new,
    policies,
    prepare,
    report,
    rescore,
    resume,
    run,
    score,
    show,
    stop,
    sweep,
    tasks,
    verify,
    watch,
)

EXIT_CODES = (
    "Exit codes: 0 done; 1 ran, and the answer is no (no valid submission, a regression); 2 usage, "
    "bad input, or something asked for is absent; 3 infrastructure broke; 4 a model's provider "
    "failed; 5 cannot tell; 70 unforeseen (a crash file is named); 130 interrupted."
)

app = typer.Typer(
    name="harness",
    help="Let agents write attention mechanisms; score them blind, in sandboxes.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for module in (
    prepare,
    run,
    resume,
    stop,
    sweep,
    watch,
    score,
    rescore,
    new,
    show,
    ls,
    leaderboard,
    compare,
    baseline,
    check,
    report,
    features,
    export,
    bundle,
    verify,
    policies,
    agents,
    doctor,
    gc,
):
    name = module.__name__.rpartition(".")[2]
    app.command(name)(module.command)
app.add_typer(tasks.app, name="tasks")
app.add_typer(bench.app, name="bench")
app.add_typer(image.app, name="image")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Let agents write attention mechanisms; score them blind, in sandboxes."""
