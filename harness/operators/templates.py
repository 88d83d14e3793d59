"""The prompts' templates: Markdown files in ``prompts/``, each of which a user may replace.

A folder given with ``--prompts`` holds replacements under the same names. A syntax error or an
unknown variable in one is reported, with file and line, before the first token is paid for.
"""

import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.digests import digest
from harness.base.errors import ConfigError
from harness.base.files import read_plain
from harness.base.validation import did_you_mean

if TYPE_CHECKING:
    from jinja2 import Environment, Template

OURS = Path(__file__).parent / "prompts"
MAX_BYTES = 1 << 20
"""Largest file of one template."""

RUN = (
    "title", "description", "files", "metric", "better", "profile", "about", "limits", "titles",
    "edits",
)  # fmt: skip
"""The variables that are the same in every prompt of a run."""
REQUEST = (*RUN, "node", "steps", "best", "memory", "attempts", "notes", "parents", "cue", "whole")
"""The variables of a request; docs/concepts/operators.md says what each holds."""
LATER = {"again.md": (*RUN, "whole", "problems", "asked", "asks"), "continue.md": RUN}
"""The variables of the templates that ask once more."""


class Templates:
    """All templates, compiled; a user's template replaces ours of the same name."""

    def __init__(self, folder: Path | None) -> None:
        self._files = _files(folder)
        self._compiled = {name: _compile(file) for name, file in self._files.items()}

    def render(self, name: str, values: Mapping[str, Any]) -> str:
        """Return the filled template. Raises ConfigError naming file and line."""
        try:
            return self._compiled[name].render(values).strip() + "\n"
        except Exception as error:  # a user's template may raise anything
            raise _broken(self._files[name], _line_of(error), str(error)) from error


def prompts_hash(folder: Path | None) -> str:
    """Return a hash of the templates that a run with this folder uses. Raises ConfigError."""
    files = sorted(_files(folder).items())
    return digest(b"".join(f"{name}\0".encode() + _content(file) + b"\0" for name, file in files))


def _files(folder: Path | None) -> dict[str, Path]:
    ours = {file.name: file for file in sorted(OURS.glob("*.md"))}
    if folder is None:
        return ours
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}.", remedy=f"a copy of files from {OURS}")
    theirs = {f.name: f for f in sorted(folder.iterdir()) if not f.name.startswith(".")}
    for name, file in theirs.items():
        if name not in ours:
            raise ConfigError(f"{file} replaces no prompt.", remedy=did_you_mean(name, ours))
    return ours | theirs


def _content(file: Path) -> bytes:
    try:
        return read_plain(file, most=MAX_BYTES, follow=file.parent == OURS)
    except OSError as error:
        raise _broken(file, None, str(error)) from error


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, StrictUndefined

    return Environment(  # noqa: S701 (Markdown for a model; nothing here becomes HTML)
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )


def _compile(file: Path) -> "Template":
    from jinja2 import TemplateSyntaxError, meta, nodes

    environment = _environment()
    try:
        source = _content(file).decode()
    except UnicodeDecodeError as error:
        raise _broken(file, None, str(error)) from error
    try:
        tree = environment.parse(source, filename=str(file))
        known = LATER.get(file.name, REQUEST)
        unknown = meta.find_undeclared_variables(tree) - set(known)
        template = environment.template_class.from_code(
            environment,
            environment.compile(source, filename=str(file)),
            environment.make_globals(None),
        )
    except TemplateSyntaxError as error:
        raise _broken(file, error.lineno, str(error.message)) from error
    for used in tree.find_all(nodes.Name):
        if used.name in unknown:
            raise _broken(
                file,
                used.lineno,
                f"there is no {used.name!r}",
                did_you_mean(used.name, known),
            )
    return template


def _line_of(error: BaseException) -> int | None:
    """Return the template's line that raised: Jinja puts it into the traceback."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename.endswith(".md")]
    return lines[-1] if lines else None


def _broken(file: Path, line: int | None, why: str, remedy: str = "") -> ConfigError:
    where = f"{file}, line {line}" if line else f"{file}"
    return ConfigError(
        f"{where}: the prompt's template is broken.",
        cause=why,
        remedy=remedy or f"compare it with {OURS / file.name}",
    )
