"""Reads a task's files: ``task.toml`` with what it extends, a text with what it includes.

Both name other files by a path from their own folder, or with ``harness:`` from that of our tasks.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.base.errors import ConfigError
from harness.base.validation import FieldPath, line_of, problems
from tasks.definition import TASKS_DIR, Definition

OURS = "harness:"
"""Prefix of a path in a task's files that is looked up in the folder of our own tasks."""
FORMAT = "docs/guides/tasks-own.md has the format"
MERGED = 3
"""Levels of tables that are merged, down to the keys of a profile; a value there is one whole."""
_INCLUDE = re.compile(r"^<!-- include (\S+) -->$", re.MULTILINE)

Toml = Mapping[str, Any]


def located(folder: Path, name: str) -> Path:
    """Return the real path of a file that a task names: in its folder, or ``harness:`` in ours.

    Links in a circle are left as they are: whoever reads the file is told.
    """
    path = TASKS_DIR / name.removeprefix(OURS) if name.startswith(OURS) else folder / name
    return Path(os.path.realpath(path))


def read_definition(file: Path) -> Definition:
    """Return a ``task.toml``; what it does not say is taken from the files that it extends.

    Raises ConfigError that names the file and line, of any of them.
    """
    texts = _texts(file)
    try:
        return _parsed(tuple(texts.values()))
    except ValidationError as error:
        cause = problems(error, Definition, toml=texts)
        raise ConfigError(_wrong(file), cause=cause, remedy=FORMAT) from error


def place_in(file: Path, place: FieldPath) -> str:
    """Return where a table or key of a ``task.toml`` stands: its line, or that in another file."""
    return line_of(_texts(file), place)


def read_with_includes(file: Path, around: tuple[Path, ...] = ()) -> str:
    """Return a text in which each line ``<!-- include FILE -->`` is replaced by that file.

    ``around``: the files that include this one. Raises ConfigError.
    """
    if file in around:
        raise ConfigError(f"{file} includes itself.", cause=" → ".join(map(str, (*around, file))))
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as a task's text.", cause=str(error)) from error

    def included(match: re.Match[str]) -> str:
        inner = located(file.parent, match[1])
        return read_with_includes(inner, (*around, file)).rstrip("\n")

    return _INCLUDE.sub(included, text)


def _texts(file: Path) -> dict[str, str]:
    """Return the texts that a file is made of, by path: what it extends first, its own as "".

    Of several files that one extends, the last comes last, and so has the last word.
    """
    texts: list[tuple[str, str]] = []
    waiting: list[tuple[Path, tuple[Path, ...]]] = [(file, ())]
    while waiting:
        here, chain = waiting.pop()
        real = Path(os.path.realpath(here))
        if real in chain:
            cause = " → ".join(map(str, (*chain, real)))
            raise ConfigError(f"{file} extends itself.", cause=cause)
        try:
            text = here.read_text(encoding="utf-8")
            names = _table(text).get("extends", [])
            names = names if isinstance(names, list) else [names]
            extended = [located(here.parent, str(name)) for name in names]
        except (OSError, ValueError, RecursionError) as error:  # also of TOML, of UTF-8
            cause = str(error) + (f"; {chain[-1]} extends it" if chain else "")
            raise ConfigError(_wrong(here), cause=cause, remedy=FORMAT) from error
        texts.append((str(here) if chain else "", text))
        waiting += [(path, (*chain, real)) for path in extended]
    return dict(reversed(texts))


@cache
def _parsed(texts: tuple[str, ...]) -> Definition:
    table: Toml = {}
    for text in texts:
        table = _merged(table, {k: v for k, v in _table(text).items() if k != "extends"}, MERGED)
    return Definition.model_validate(table)


@cache
def _table(text: str) -> Toml:
    return tomllib.loads(text)


def _merged(base: Toml, own: Toml, levels: int) -> Toml:
    """Return both tables as one: first the keys that only ``own`` has, then those of ``base``."""
    new = {key: value for key, value in own.items() if key not in base}
    merged = dict(base)
    for key in base.keys() & own.keys():
        old, value = base[key], own[key]
        both = levels > 1 and isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merged(old, value, levels - 1) if both else value
    return {**new, **merged}


def _wrong(file: Path) -> str:
    return f"{file} is not a valid task definition."
