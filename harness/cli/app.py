"""All commands, in the order in which a new user meets them.

A command's module is imported only when the command is called, so that ``harness --help`` answers
at once. The help sentences are in ``COMMANDS`` for that reason.
"""

import importlib
import signal
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from harness import __version__

COMMANDS = {
    "prepare": "Make a task's data ahead of time, and say what is in them.",
    "run": "Search: an agent writes submissions, a blind judge scores them, the best is tested once.",  # noqa: E501
    "resume": "Take an interrupted run to its end; nothing that was finished is done again.",
    "stop": "End live runs well: no new node, the best so far is graded, the result is written.",
    "sweep": "Run a whole suite, several runs at once; the same command again goes on with it.",
    "watch": "Watch runs: best so far, step, time, GPU, state. It only reads; q leaves.",
    "score": "Train one submission in a sandbox, score it as a search would, and keep the score.",
    "rescore": "Score the same files with the same seed under today's judge, beside the old score.",
    "new": "Write a working skeleton submission, with the task's description beside it.",
    "show": "Show a run's tree with its scores, or one node in full.",
    "ls": "List runs: their state and their scores.",
    "leaderboard": "Compare finished runs; different conditions never share a table.",
    "compare": "Compare two agents, policies or sets of runs: paired where seeds and tasks match.",
    "baseline": "Print what `harness check` compares to: the scores of finished runs, as JSON.",
    "check": "Gate a change: exit 0 no regression, 1 regression, 5 cannot tell (how many more seeds).",  # noqa: E501
    "report": "Write one HTML file that opens offline: curves, trees, sources, comparison, methods.",  # noqa: E501
    "features": "Tell which kinds of change made scores better, step by step.",
    "export": "Write runs in formats that other tools read.",
    "bundle": "Pack a run into one archive that a stranger can check: harness verify.",
    "verify": "Check every hash of a bundle, and whether its score can be had again.",
    "policies": "List the search policies and the parameters that --set changes.",
    "agents": "List the models: provider, limits, prices and their date, and whether the key is set.",  # noqa: E501
    "doctor": "Say what this machine can do, and how to mend what it cannot.",
    "gc": "Remove what dead processes left: sandboxes, scratch; on request old runs.",
    "tasks": "List the tasks, and what a guess scores; `harness tasks show NAME` says all of one.",
    "bench": "What attention mechanisms cost on this machine.",
    "image": "The image of the sandbox docker.",
}
"""Module in this folder -> the first sentence of its command's help."""

EXIT_CODES = (
    "Exit codes: 0 done; 1 ran, and the answer is no (no valid submission, a regression); 2 usage, "
    "bad input, or something asked for is absent; 3 infrastructure broke; 4 a model's provider "
    "failed; 5 cannot tell; 70 unforeseen (a crash file is named); 130 interrupted."
)


def load(name: str) -> TyperCommand | TyperGroup:
    """Import a command's module and return the command.

    The module has a function ``command``, or an ``app`` with several commands.
    """
    # pydantic turns a Ctrl-C while it builds a model into another error: block it during import.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        module = importlib.import_module(f"harness.cli.{name}")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if hasattr(module, "app"):
        return get_group(module.app)
    alone = typer.Typer(add_completion=False)
    alone.command(name)(module.command)
    return get_command(alone)  # type: ignore[return-value]


class Commands(TyperGroup):
    """The group of all commands. Only the command that is called is imported."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 (typer's)
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=text) for name, text in COMMANDS.items()}

    def resolve_command(self, ctx, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        """Return the called command's name, the command, and its arguments."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and load(name), rest


app = typer.Typer(
    name="harness",
    cls=Commands,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
