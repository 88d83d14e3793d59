"""The commands that we print for people to paste, each a line that a shell takes as it stands."""

import shlex

WITH_TASKS = frozenset(
    {"new", "prepare", "rescore", "resume", "run", "score", "sweep", "tasks", "verify"}
)
"""The commands that take --tasks-dir."""

_given: dict[str, object | None] = {}


def remember_tasks_dir(folder: object | None) -> None:
    """Let every printed command repeat the --tasks-dir that was typed; None forgets it."""
    _given["tasks_dir"] = folder


def command(name: str, *arguments: object, **options: object) -> str:
    """Return ``harness NAME …``. Of the options None and False are left out, True has no value."""
    words = ["harness", *name.split(), *map(quote, arguments)]
    if name.split()[0] in WITH_TASKS:
        options = _given | options
    for option, value in options.items():
        flag = "--" + option.replace("_", "-")
        if value is not None and value is not False:
            words += [flag] if value is True else [flag, quote(value)]
    return " ".join(words)


def quote(argument: object) -> str:
    """Quote for a shell; a path that begins with a hyphen is no option."""
    text = str(argument)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
