"""Runs the Python module of a task, and tells the module's author what is wrong: file and line.

Errors of our own tasks' modules pass unchanged: those are our bugs. A module from outside is
imported and called, and its data are checked; none of its errors is reported as a harness bug.
"""

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

from pydantic import ValidationError

from harness.base.digests import digest
from harness.base.errors import ConfigError, HarnessError
from harness.base.validation import did_you_mean, problems
from tasks.definition import TASKS_DIR, Definition, Manifest, Progress, TaskModule, Value
from tasks.kinds import KINDS
from tasks.prepared import PreparationLock, altered
from tasks.shared import SPLITS, make_folder

PAGE = "docs/guides/tasks-own.md"
ARGUMENTS = ("profile", "data", "root", "progress")


class TaskFolder(Protocol):
    """The attributes of a task that are needed to run its module."""

    folder: Path
    name: str
    definition: Definition


def prepare(
    task: TaskFolder, profile: str, data: Mapping[str, Value], root: Path, progress: Progress
) -> Path:
    """Return the data folder that the task's module makes under ``root``. Raises HarnessError."""
    if TASKS_DIR in task.folder.parents:
        ours = cast(TaskModule, importlib.import_module(task.definition.module))
        return ours.prepare(profile, data, root, progress)
    file = task.folder / f"{task.definition.module}.py"
    progress(f"{file.name} of {task.name} prepares the data", 0, 1)
    make_folder(root)
    with (
        # So that its author need not handle runs that start at the same time.
        PreparationLock(root / f".{digest(str(task.folder))}.lock", progress),
        # What it prints must not mix with the output of a command.
        contextlib.redirect_stdout(sys.stderr),
    ):
        try:
            module = _imported(task, file)
            function: Any = getattr(module, "prepare", None)
            _refuse_uncallable(function, file)
            path = function(profile, data, root, progress)
        except HarnessError:
            raise
        except (Exception, SystemExit) as error:
            raise _explained(error, task, file, profile, data) from error
        _check(path, task, profile, root, file)
    return Path(path)


def manifest_of(folder: Path) -> Manifest:
    """Return the manifest of a data folder. Raises ConfigError."""
    file = folder / "manifest.json"
    remedy = f"remove {folder}, and prepare the data again"
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        cause = problems(error, Manifest)
        raise ConfigError(f"{file} is no manifest.", cause=cause, remedy=remedy) from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read.", cause=str(error), remedy=remedy) from error


def _imported(task: TaskFolder, file: Path) -> ModuleType:
    name = f"_task_{digest(str(task.folder))}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ConfigError(
            f"Task {task.name} has no module {file}.",
            remedy="module in task.toml is the name of a Python file beside it, without .py",
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _refuse_uncallable(function: Any, file: Path) -> None:  # noqa: ANN401 (whatever it is)
    try:
        inspect.signature(function).bind(*ARGUMENTS)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{file} has no prepare({', '.join(ARGUMENTS)}).",
            cause=str(error) if function is not None else "",
            remedy=f"see {PAGE}",
        ) from None


def _explained(
    error: BaseException, task: TaskFolder, file: Path, profile: str, data: Mapping[str, Value]
) -> ConfigError:
    what = f"{type(error).__name__}: {error}".strip().removesuffix(":")
    remedy = f"mend it; {PAGE} says what prepare is given and what it returns"
    if isinstance(error, SystemExit):
        what = f"it ends the process: sys.exit({error.code!r})"
    elif isinstance(error, KeyError) and str(error.args[0] if error.args else "") not in data:
        known = f"data of profile {profile} in {task.folder / 'task.toml'} has {', '.join(data)}"
        near = did_you_mean(str(error.args[0] if error.args else ""), data)
        remedy = f"mend it; if it is a value of the task's: {known}; did you mean {near}"
    where = _line_in(error, task.folder)
    return ConfigError(
        f"{file}, the module of task {task.name}, failed.",
        cause=f"{where}: {what}" if where else what,
        remedy=remedy,
    )


def _line_in(error: BaseException, folder: Path) -> str:
    """Return the error's innermost place in the task's folder, with its line of code; or ""."""
    if isinstance(error, SyntaxError) and Path(error.filename or "").is_relative_to(folder):
        return f"{error.filename}, line {error.lineno}: {(error.text or '').strip()}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    return f"{own[-1].filename}, line {own[-1].lineno}: {own[-1].line}" if own else ""


def _check(path: object, task: TaskFolder, profile: str, root: Path, file: Path) -> None:
    """Raise ConfigError if what ``prepare`` returned is not valid data of the task."""
    if not isinstance(path, str | os.PathLike):
        fault = f"it returned {str(path)[:60]!r}; wanted: the path of the data folder"
    elif not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):  # noqa: PTH100
        # We set its modes and may remove it, so it must not be another folder of the user.
        fault = f"{path} is not below the folder that it is given, {root}"
    elif not Path(path).is_dir():
        fault = f"{path} is no folder"
    else:
        try:
            fault = _data_fault(Path(path), task, profile)
        except (OSError, ValueError, EOFError) as error:  # numpy's errors are ValueErrors
            fault = f"it cannot be read: {error}"
    if fault:
        again = f", and then raise its generator's number, or remove {path}" if path else ""
        raise ConfigError(
            f"What prepare of {file} made is no data of task {task.name}.",
            cause=fault,
            remedy=f"mend it{again}; {PAGE} says what is wanted",
        )


def _data_fault(folder: Path, task: TaskFolder, profile: str) -> str:
    """Return what is wrong with a data folder, or "". Raises OSError, ValueError."""
    manifest = manifest_of(folder)  # its task is not checked: tasks may share data
    if manifest.profile != profile:
        return f"manifest.json is of profile {manifest.profile}; wanted: {profile}"
    for split in SPLITS:
        if manifest.rows.get(split, 0) < 1:
            return f"rows in manifest.json says nothing of {split}, or that it is empty"
        if not (folder / split).is_dir():
            return f"there is no folder {split}"
        if not any(file.startswith(f"{split}/") for file in manifest.files):
            return f"files in manifest.json names no file of {split}: its hash would not tell them"
    fault = KINDS.find(task.definition.kind).data_fault
    said = (fault(folder / split, manifest.rows[split], manifest.shape) for split in SPLITS)
    return next(filter(None, said), "") or altered(folder, manifest.files)
