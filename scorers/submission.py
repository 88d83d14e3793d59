"""What can be said of a submission from its text alone, before any of it runs."""

import json
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256

from scorers.score import Reason
from tasks.spec import Task, Value


class Rejected(Exception):
    """The submission breaks a rule that its text alone shows."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def hash_files(files: Mapping[str, str]) -> str:
    """Return the SHA-256 of a submission's names and contents."""
    return sha256(json.dumps(dict(sorted(files.items()))).encode()).hexdigest()


def settings_of(task: Task, profile: str, files: Mapping[str, str]) -> dict[str, Value]:
    """Return the runner's settings, the submission's own merged in where it may choose.

    Raises Rejected.
    """
    definition = task.definition
    missing = [name for name in definition.files if name not in files]
    if missing:
        raise Rejected(Reason.MISSING_FILE, f"No {missing[0]} was submitted.")
    limits = task.profile(profile).limits
    size = sum(len(text.encode()) for text in files.values())
    if size > limits.source_kb * 1024:
        message = f"The source is {size:,} bytes; the limit is {limits.source_kb} KiB."
        raise Rejected(Reason.TOO_LARGE, message)
    settings = dict(task.profile(profile).settings)
    chosen = _hyperparameters(files[definition.files[0]])
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
    return {**settings, **chosen}


_EXTRACT = """
import ast, json, sys
for node in ast.parse(sys.stdin.read()).body:
    targets = node.targets if isinstance(node, ast.Assign) else []
    if any(isinstance(t, ast.Name) and t.id == "HYPERPARAMETERS" for t in targets):
        value = ast.literal_eval(node.value)
        assert isinstance(value, dict) and all(isinstance(k, str) for k in value)
        print(json.dumps(value))
        break
else:
    print("{}")
"""


def _hyperparameters(source: str) -> dict[str, Value] | str:
    """Return the literal HYPERPARAMETERS of a source, {} if there is none, or what is wrong.

    Parsed in a throw-away process: deep nesting can crash the parser, and agent text must
    not be able to take the judge along.
    """
    if "HYPERPARAMETERS" not in source:
        return {}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _EXTRACT],
        input=source.encode(),
        capture_output=True,
        timeout=20,
        check=False,
    )
    if done.returncode == 0:
        value: dict[str, Value] = json.loads(done.stdout)
        return value
    if b"SyntaxError" in done.stderr:
        return {}  # the runner names the line
    return "HYPERPARAMETERS must be one literal dict with string keys at the top level."
