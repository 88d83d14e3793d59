"""What a task is: a folder with ``task.toml``, ``description.md`` and a Python module.

The folder is readable without this code. The module named in ``task.toml`` prepares the
data; the folder ``designs/`` holds the reference submissions; the files of ``runner`` are
the only code of ours that enters the sandbox with a submission.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import ConfigError

TASKS_DIR = Path(__file__).parent
KNOBS_MARK = "KNOBS = "
OURS = "harness:"
"""A path in a task's files that begins so is looked for among our own tasks."""
_INCLUDE = re.compile(r"^<!-- include (\S+) -->$", re.MULTILINE)

Value = int | float | str | bool
Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` during preparation."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(Strict):
    """What one evaluation may use. ``train_s`` runs from spawn to the first served prediction."""

    train_s: float
    serve_s: float
    memory_mb: int
    cpus: int
    pids: int = 128
    scratch_mb: int = 1024
    source_kb: int = 256
    max_parameters: int | None = None


class Profile(Strict):
    """A size of a task: ``data`` for ``prepare``, ``settings`` for the runner, ``judge`` for it."""

    about: str
    ranked: bool = True
    search_steps: int
    device: Literal["cpu", "gpu", "any"] = "any"
    data: dict[str, Value]
    settings: dict[str, Value]
    limits: Limits
    judge: dict[str, Value] = Field(default_factory=dict)


class Knob(Strict):
    """One searchable choice: a list of ``choices``, or a range from ``low`` to ``high``."""

    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False

    @model_validator(mode="after")
    def _has_a_space(self) -> Self:
        if not self.choices and not self.low < self.high:
            raise ValueError("a knob needs choices, or low < high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range starts above 0")
        return self

    def allows(self, value: object) -> bool:
        """Return whether ``value`` is one of the choices or within the range."""
        if self.choices:
            return any(type(value) is type(c) and value == c for c in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.integer and not isinstance(value, int):
            return False
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if self.choices:
            return "one of " + ", ".join(str(c) for c in self.choices)
        kind = "an integer" if self.integer else "a number"
        return f"{kind} from {self.low:g} to {self.high:g}"


class Reference(Strict):
    """A published value to stand beside ours. ``disputed``: there is reason not to believe it."""

    name: str
    value: float
    source: str
    profile: str = "paper"
    note: str = ""
    disputed: bool = False


class Shortcut(Strict):
    """What a guess scores that does not do the task: a model no better has learned no more."""

    name: str
    value: float
    source: str
    profile: str = "paper"


class Definition(Strict):
    """``task.toml`` as it is on disk.

    ``writes`` is what a submission is: a whole "program", or a "mechanism" inside a fixed shell,
    whose text is held to what a mechanism needs (``scorers/source.py``).
    ``entry`` is the runner's file that trains and serves; ``frozen_entry`` the one that serves
    an exported model in a process of its own, where the task has such a way. ``needs`` are the
    modules, beside numpy, that the runner imports in the sandbox. ``chance`` is what a blind guess
    scores. ``stands_in_for`` names the task whose data this one replaces where they
    cannot be had; scores of the two never compare.
    """

    format: Literal[1]
    name: str
    title: str
    kind: Literal["classification", "language_modeling"]
    writes: Literal["program", "mechanism"] = "program"
    metric: Literal["accuracy", "bits_per_byte"]
    direction: Literal["maximize", "minimize"]
    module: str
    files: tuple[str, ...]
    runner: tuple[str, ...]
    entry: str
    frozen_entry: str | None = None
    needs: tuple[str, ...] = ()
    variants: tuple[Literal["fixed", "configurable"], ...] = ("fixed",)
    bounds: dict[str, Knob] = Field(default_factory=dict)
    knobs: dict[str, Knob] = Field(default_factory=dict)
    designs: tuple[str, ...] = ()
    chance: float | None = None
    shortcuts: tuple[Shortcut, ...] = ()
    stands_in_for: str | None = None
    references: tuple[Reference, ...] = ()
    profiles: dict[str, Profile]


class Manifest(Strict):
    """``manifest.json`` of a prepared data folder, written last: no manifest, no data.

    ``shape`` is what judge and runner need to know of the rows (length, vocabulary, classes);
    ``baselines`` are scores that need no learning, by name and split.
    """

    format: Literal[1] = 1
    task: str
    profile: str
    generator: str
    parameters: dict[str, Value]
    shape: dict[str, int]
    rows: dict[str, int]
    files: dict[str, str]
    baselines: dict[str, float]

    @property
    def hash(self) -> str:
        """Hash of every data file's content; equal hashes mean equal data."""
        return digest(json.dumps(self.files, sort_keys=True))


class Design(BaseModel):
    """A reference submission."""

    model_config = ConfigDict(frozen=True)
    name: str
    summary: str
    files: dict[str, str]


class TaskModule(Protocol):
    """What a task's Python module offers."""

    def prepare(
        self, profile: str, data: Mapping[str, Value], root: Path, progress: Progress
    ) -> Path:
        """Make the data folder under ``root`` if it is not there whole, and return it.

        Idempotent; splits ``train/``, ``search/``, ``test/`` of ``.npy`` files, and
        ``manifest.json`` (a Manifest) written last by atomic rename.
        """
        ...


class Task:
    """One task in one variant, as the rest of the harness sees it."""

    def __init__(self, folder: Path, definition: Definition, variant: str) -> None:
        self.folder = folder
        self.definition = definition
        self.variant = variant
        self.configurable = variant == "configurable"
        self.name = definition.name + ("-configurable" if self.configurable else "")

    def profile(self, name: str) -> Profile:
        """Return the profile of that name. Raises ConfigError naming the nearest one."""
        profiles = self.definition.profiles
        if name not in profiles:
            raise ConfigError(
                f"Task {self.name} has no profile {name!r}.",
                remedy=did_you_mean(name, profiles),
            )
        return profiles[name]

    def description(self, profile: str) -> str:
        """Return the text that tells an agent what to write, with this profile's numbers.

        A line ``<!-- include FILE -->`` stands for the text of that file; see ``located``.
        """
        chosen = self.profile(profile)
        text = _with_includes(self.folder / "description.md")
        numbers = {**chosen.data, **chosen.settings, **chosen.limits.model_dump()}
        for key, value in numbers.items():
            text = text.replace("{" + key + "}", str(value))
        begin, end = ("<!-- fixed -->", "<!-- /fixed -->")
        if not self.configurable:
            begin, end = ("<!-- configurable -->", "<!-- /configurable -->")
        while begin in text:
            before, rest = text.split(begin, 1)
            text = before + rest.split(end, 1)[1]
        text = re.sub(r"<!-- /?(fixed|configurable) -->\n?", "", text)
        bounds = "\n".join(f"- `{k}`: {v}" for k, v in self.definition.bounds.items())
        return text.replace("{bounds}", bounds)

    def prepare(
        self,
        profile: str,
        root: Path,
        progress: Progress,
        overrides: Mapping[str, Value] = MappingProxyType({}),
    ) -> tuple[Path, Manifest]:
        """Make the data if need be; return its folder and manifest.

        ``overrides`` replace values of the profile's ``data``. Raises ConfigError where the
        task has no such value.
        """
        chosen = self.profile(profile)
        for name in overrides:
            if name not in chosen.data:
                raise ConfigError(
                    f"The data of {self.name} have no choice of {name}.",
                    remedy=f"{self.name} can be told: {', '.join(chosen.data)}",
                )
        data = {**chosen.data, **overrides}
        path = self._module().prepare(profile, data, root, progress)
        _set_modes(path)
        return path, Manifest.model_validate_json((path / "manifest.json").read_text())

    def designs(self) -> list[Design]:
        """Return the reference submissions, in the order in which they are tried."""
        return [self._design(name) for name in self.definition.designs]

    def self_test(self) -> Design | None:
        """Return what tests the sandbox: ``designs/self_test.py`` if there is one, or the first."""
        if (self.folder / "designs" / "self_test.py").is_file():
            return self._design("self_test")
        return next((self._design(name) for name in self.definition.designs[:1]), None)

    def knobs(self) -> dict[str, Knob]:
        """Return what a searching agent may turn: the design's knobs, and the bounds if free."""
        bounds = self.definition.bounds if self.configurable else {}
        return {**self.definition.knobs, **bounds}

    def render(self, values: Mapping[str, Value]) -> dict[str, str]:
        """Return the submission that ``designs/searchable.py`` makes of the knobs' values."""
        source = (self.folder / "designs" / "searchable.py").read_text()
        lines = source.splitlines(keepends=True)
        at = [i for i, line in enumerate(lines) if line.startswith(KNOBS_MARK)]
        if len(at) != 1:
            raise ConfigError(f"{self.name}: designs/searchable.py needs one line '{KNOBS_MARK}…'")
        mine = {k: v for k, v in sorted(values.items()) if k in self.definition.knobs}
        free = {k: v for k, v in sorted(values.items()) if k not in self.definition.knobs}
        lines[at[0]] = f"{KNOBS_MARK}{mine!r}\n"
        if free:
            lines[at[0]] += f"HYPERPARAMETERS = {free!r}\n"
        return {self.definition.files[0]: "".join(lines)}

    def runner_files(self) -> dict[str, Path]:
        """Return our own code that goes into the sandbox: name there → path here."""
        paths = [located(self.folder, name).resolve() for name in self.definition.runner]
        for path in paths:
            if not path.is_file():
                raise ConfigError(
                    f"Task {self.name} names a runner that is not there: {path}.",
                    remedy=f"runner takes paths from {self.folder}, or {OURS}PATH",
                )
        return {path.name: path for path in paths}

    def hash(self, profile: str) -> str:
        """Hash of all that defines the task at this profile; scores compare when it agrees."""
        parts = [
            self.name,
            profile,
            self.profile(profile).model_dump_json(),
            json.dumps({k: v.model_dump() for k, v in self.definition.bounds.items()}),
            self.description(profile),
            self.definition.writes,
        ]
        parts += [path.read_text() for _, path in sorted(self.runner_files().items())]
        return digest("\0".join(parts))

    def _design(self, name: str) -> Design:
        path = self.folder / "designs" / f"{name}.py"
        if name.startswith(OURS):
            path = located(self.folder, f"{name}.py")
        elif not path.is_file():  # the designs that a family of tasks shares
            path = self.folder.parent / "designs" / f"{name}.py"
        try:
            text = path.read_text()
            summary = text.split('"""')[1].strip().splitlines()[0]
        except (OSError, UnicodeDecodeError, IndexError) as error:
            raise ConfigError(
                f"Task {self.name} has no design {name}.",
                cause=f"{path} cannot be read, or does not begin with a docstring",
                remedy=f"mend it, or take it out of {self.folder / 'task.toml'}",
            ) from error
        return Design(name=path.stem, summary=summary, files={self.definition.files[0]: text})

    def _module(self) -> TaskModule:
        if TASKS_DIR in self.folder.parents:
            return cast(TaskModule, importlib.import_module(self.definition.module))
        name = f"_task_{digest(str(self.folder))}"
        if name not in sys.modules:
            path = self.folder / f"{self.definition.module}.py"
            spec = importlib.util.spec_from_file_location(name, path)
            if spec is None or spec.loader is None or not path.is_file():
                raise ConfigError(
                    f"Task {self.name} has no module {path}.",
                    remedy="module in task.toml is the name of a Python file beside it",
                )
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except Exception as error:
                del sys.modules[name]
                raise ConfigError(
                    f"{path}, the module of task {self.name}, cannot be imported.",
                    cause=f"{type(error).__name__}: {error}",
                ) from error
        return cast(TaskModule, sys.modules[name])


def located(folder: Path, name: str) -> Path:
    """Return the path of a file that a task names: from its folder, or ``harness:`` from ours."""
    return TASKS_DIR / name.removeprefix(OURS) if name.startswith(OURS) else folder / name


def _with_includes(file: Path) -> str:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as a task's text.", cause=str(error)) from error
    return _INCLUDE.sub(
        lambda match: _with_includes(located(file.parent, match[1])).rstrip("\n"), text
    )


def _set_modes(data: Path) -> None:
    """Let the sandbox's user read ``train/``, whatever the umask, and nobody else the rest."""
    for split, mode in (("train", 0o755), ("search", 0o700), ("test", 0o700)):
        folder = data / split
        # Another user's shared cache is used as it is.
        with contextlib.suppress(PermissionError):
            folder.chmod(mode)
            for file in folder.iterdir():
                file.chmod(mode & 0o644)


def digest(text: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of ``text``."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def did_you_mean(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """Return a remedy that names the nearest known name and lists them all."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    listing = "one of: " + ", ".join(names)
    return f"{near[0]!r} ({listing})" if near else listing


@cache
def _load(file: Path) -> Definition:
    try:
        return Definition.model_validate(tomllib.loads(file.read_text()))
    except (tomllib.TOMLDecodeError, ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not a valid task definition.", cause=str(error)) from error


def all_tasks() -> dict[str, Task]:
    """Return every task by name: ours, and those under ``$HARNESS_TASKS_DIR`` if it is set."""
    roots = [TASKS_DIR]
    extra = os.environ.get("HARNESS_TASKS_DIR")
    if extra:
        roots.append(Path(extra))
    found: dict[str, Task] = {}
    for root in roots:
        for file in sorted(root.rglob("task.toml")):
            definition = _load(file)
            for variant in definition.variants:
                task = Task(file.parent, definition, variant)
                if task.name in found:
                    raise ConfigError(
                        f"Two tasks are called {task.name}.",
                        cause=f"{found[task.name].folder} and {task.folder}",
                        remedy="give the second another name: scores of one name compare",
                    )
                found[task.name] = task
    return found


def find_task(name: str) -> Task:
    """Return the task of that name. Raises ConfigError naming the nearest one."""
    tasks = all_tasks()
    if name not in tasks:
        raise ConfigError(
            f"There is no task {name!r}.",
            remedy=did_you_mean(name, tasks) + "; --tasks-dir DIR adds your own",
        )
    return tasks[name]
