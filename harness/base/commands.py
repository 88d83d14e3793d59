"""Builds the ``harness …`` commands that messages show, quoted so that people can paste them."""

import shlex

WITH_TASKS = frozenset(
    {"new", "prepare", "rescore", "resume", "run", "score", "sweep", "tasks", "verify"}
)
"""The commands that take --tasks-dir."""

_given: dict[str, object | None] = {}


def remember_tasks_dir(folder: object | None) -> None:
    """Keep the --tasks-dir that was typed, so that printed commands repeat it; None clears it."""
    _given["tasks_dir"] = folder


def command(name: str, *arguments: object, **options: object) -> str:
    """Return ``harness NAME …``. An option is left out if None or False, a bare flag if True."""
    words = ["harness", *name.split(), *map(quote, arguments)]
    if name.split()[0] in WITH_TASKS:
        options = _given | options
    for option, value in options.items():
        flag = "--" + option.replace("_", "-")
        if value is not None and value is not False:
            words += [flag] if value is True else [flag, quote(value)]
    return " ".join(words)


def quote(argument: object) -> str:
    """Quote for a shell; ``./`` keeps a path that begins with a hyphen from being an option."""
    text = str(argument)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
