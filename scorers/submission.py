"""Checks a submission by its source text, before any of it runs: files, size, names, constants.

``source`` parses the text in a separate process; ``allowed`` lists the names that are refused.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.base.errors import ConfigError
from harness.base.registry import load
from scorers.score import Audit, Reason
from tasks import architecture
from tasks.definition import Value
from tasks.spec import Task
from tasks.submissions import SUBMISSIONS

CONSTANTS_LIMIT = 1024
"""Limit of the compressed size of a mechanism's constants, in bytes.

The reference designs have 50 to 300. A kilobyte can hold the labels of a few hundred rows, but no
useful part of the weights of a model.
"""

READER = "import sys; sys.path.insert(0, sys.argv[1]); from scorers.source import main; main()"
"""Program that reads a source from stdin, in a Python without packages; see ``source.py``."""

READ_S = 20
"""Seconds that reading a source may take: a megabyte takes less than two."""


class Rejected(Exception):
    """The submission breaks a rule that its text alone shows."""

    def __init__(self, reason: Reason, message: str, audits: tuple[Audit, ...] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.audits = audits


@dataclass(frozen=True, slots=True)
class CheckedText:
    """The settings that the text of a submission chooses, and the audits of the text."""

    settings: dict[str, Value] = field(default_factory=dict)
    audits: tuple[Audit, ...] = ()


CheckText = Callable[[Task, str, Mapping[str, str]], CheckedText]
"""Called with a task, the profile's name and a submission's files; no required file is missing.

Raises Rejected."""


def hash_files(files: Mapping[str, str]) -> str:
    """Return the SHA-256 of the names and contents of a submission's files."""
    return sha256(json.dumps(dict(sorted(files.items()))).encode()).hexdigest()


def read(task: Task, profile: str, files: Mapping[str, str]) -> CheckedText:
    """Return all settings for the runner, and the audits of the text. Raises Rejected."""
    definition = task.definition
    missing = [name for name in definition.files if name not in files]
    if missing:
        raise Rejected(Reason.MISSING_FILE, f"No {missing[0]} was submitted.")
    limits = task.profile(profile).limits
    size = sum(len(text.encode()) for text in files.values())
    if size > limits.source_kb * 1024:
        message = f"The source is {size:,} bytes; the limit is {limits.source_kb} KiB."
        raise Rejected(Reason.TOO_LARGE, message)
    check: CheckText = load(SUBMISSIONS.find(definition.writes).check)
    found = check(task, profile, files)
    return CheckedText({**task.profile(profile).settings, **found.settings}, found.audits)


def check_program(task: Task, _profile: str, files: Mapping[str, str]) -> CheckedText:
    """Return the hyperparameters that a program sets. Raises Rejected."""
    text = files[task.definition.files[0]]
    found = _look_into(text) if "HYPERPARAMETERS" in text else {"syntax": ""}
    if "syntax" in found:
        return CheckedText()  # the runner will report the line of the syntax error
    return CheckedText(_chosen(task, found["hyperparameters"] or {}))


def check_mechanism(task: Task, _profile: str, files: Mapping[str, str]) -> CheckedText:
    """Return the hyperparameters that a mechanism sets, and its audits. Raises Rejected."""
    main = task.definition.files[0]
    found = _look_into(files[main])
    if "syntax" in found:
        raise Rejected(Reason.SYNTAX_ERROR, f"{main} cannot be parsed: {found['syntax']}")
    audits = _audits(main, found)
    return CheckedText(_chosen(task, found["hyperparameters"] or {}), audits)


def check_architecture(task: Task, profile: str, files: Mapping[str, str]) -> CheckedText:
    """Check that an architecture has the wanted primitives and number of layers. Raises Rejected.

    Nothing of it is executed.
    """
    try:
        architecture_of(task, profile, files)
    except architecture.Misread as error:
        message = f"{task.definition.files[0]}: {error}"
        raise Rejected(Reason.INTERFACE_ERROR, message) from None
    return CheckedText()


def architecture_of(task: Task, profile: str, files: Mapping[str, str]) -> tuple[str, ...]:
    """Return the primitives of a submission. Raises Misread; ConfigError without a ``sequence``."""
    definition = task.definition
    if definition.sequence is None:
        raise ConfigError(f"Task {task.name} has no sequence: task.toml names no primitives.")
    text, primitives = files[definition.files[0]], definition.sequence.primitives
    return architecture.read(text, primitives, task.layers(profile))


def _look_into(text: str) -> dict[str, Any]:
    """Parse a source in a throw-away process; return what ``source.py`` prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", READER, str(Path(__file__).parents[1])],
        input=text.encode(),
        capture_output=True,
        timeout=READ_S,
        check=False,
    )
    if done.returncode != 0:
        return {"syntax": "it is nested too deeply"}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _audits(main: str, found: dict[str, Any]) -> tuple[Audit, ...]:
    reaches, constants = found["reaches"], found["constant_bytes"]
    audits = (
        Audit(
            name="mechanism only",
            passed=not reaches,
            value=float(len(reaches)),
            threshold=0.0,
            power="names of files, processes, gradients, optimisers and Python's insides; no wall",
        ),
        Audit(
            name="constants",
            passed=constants <= CONSTANTS_LIMIT,
            value=float(constants),
            threshold=float(CONSTANTS_LIMIT),
            power="bytes of the source's constants, compressed: labels or weights brought along",
        ),
    )
    if reaches:
        places = "; ".join(
            f"line {line}: {what} (write {instead})" for line, what, instead in reaches[:5]
        )
        more = f"; and {len(reaches) - 5} more" if len(reaches) > 5 else ""
        message = (
            f"{main} reaches for what a mechanism has no use for: {places}{more}. "
            "docs/reference/allowed.md lists what is allowed and what is not."
        )
        raise Rejected(Reason.FORBIDDEN, message, audits)
    if not audits[1].passed:
        message = (
            f"The constants of {main} come to {constants:,} bytes when compressed; "
            f"{CONSTANTS_LIMIT:,} are allowed: what a model knows comes from its training rows."
        )
        raise Rejected(Reason.BROUGHT_ALONG, message, audits)
    return audits


def _chosen(task: Task, chosen: dict[str, Value] | str) -> dict[str, Value]:
    """Return the HYPERPARAMETERS if the task allows them. Raises Rejected."""
    definition = task.definition
    if isinstance(chosen, str):
        raise Rejected(Reason.BAD_HYPERPARAMETERS, chosen)
    if chosen and not task.configurable:
        message = (
            f"HYPERPARAMETERS is not part of {task.name}, whose training is fixed; "
            f"{definition.name}-configurable takes them."
        )
        raise Rejected(Reason.BAD_HYPERPARAMETERS, message)
    for name, value in chosen.items():
        bound = definition.bounds.get(name)
        if bound is None or not bound.allows(value):
            allowed = (
                f"it must be {bound}" if bound else f"known are {', '.join(definition.bounds)}"
            )
            message = f"HYPERPARAMETERS[{name!r}] = {value!r}: {allowed}."
            raise Rejected(Reason.BAD_HYPERPARAMETERS, message)
    return chosen
