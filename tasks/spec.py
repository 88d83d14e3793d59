"""A task: a folder with ``task.toml``, ``description.md`` and a Python module. Found and read here.

People can read the folder without this code. The module named in ``task.toml`` prepares the
data; the folder ``designs/`` holds the reference submissions; the files of ``runner`` enter the
sandbox with a submission, beside the judge's own file. ``definition`` has the schema.
"""

import ast
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict

from harness.base.digests import digest
from harness.base.errors import ConfigError
from harness.base.registry import installed, package, places
from harness.base.strict import Strict as Strict
from harness.base.validation import did_you_mean
from tasks import architecture, module
from tasks.definition import TASKS_DIR, Definition, Knob, Manifest, Profile, Progress, Value
from tasks.kinds import KINDS
from tasks.reading import OURS, located, place_in, read_definition, read_with_includes
from tasks.runner import parse, settings_read
from tasks.shared import set_modes

KNOBS_MARK = "KNOBS = "
DESCRIPTION = "description.md"
BLIND = "blind"
"""The name of the only profile of a task that is told blind."""
GROUP = "harness.tasks"
"""The group of entry points whose value is a package that contains tasks."""
_NAME = re.compile(r"""^\s*name\s*=\s*["'](.+?)["']""", re.MULTILINE)


class Design(BaseModel):
    """A reference submission."""

    model_config = ConfigDict(frozen=True)
    name: str
    summary: str
    files: dict[str, str]


class Task:
    """One task in one variant, as the rest of the harness sees it."""

    def __init__(
        self, folder: Path, definition: Definition, variant: str, page: str = DESCRIPTION
    ) -> None:
        self.folder = folder
        self.definition = definition
        self.variant = variant
        self.page = page
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

    @property
    def paired(self) -> bool:
        """Whether all nodes of a run are trained with one seed.

        That is so where they can be trained together: then they differ by their submission only.
        """
        return bool(KINDS.find(self.definition.kind).together)

    @property
    def runs_code(self) -> bool:
        """Whether code of a submission runs, in a sandbox."""
        return KINDS.find(self.definition.kind).runs_code

    def layers(self, profile: str) -> int:
        """Return how many layers a submission has, of a task with a ``sequence``."""
        return int(self.profile(profile).settings["layers"])

    @property
    def sources(self) -> frozenset[Value]:
        """The names of the sources that the profiles take the data from."""
        profiles = self.definition.profiles.values()
        return frozenset(p.data["source"] for p in profiles if "source" in p.data)

    def description(self, profile: str) -> str:
        """Return the text that tells an agent what to write, with this profile's numbers.

        A line ``<!-- include FILE -->`` is replaced by that file's text; see ``located``.
        """
        chosen = self.profile(profile)
        text = read_with_includes(located(self.folder, self.page))
        numbers = {**chosen.data, **chosen.settings, **chosen.limits.model_dump()}
        for key, value in numbers.items():
            text = text.replace("{" + key + "}", str(value))
        if sequence := self.definition.sequence:
            names = ", ".join(f"`{name}`" for name in sequence.primitives)
            text = text.replace("{primitives}", names)
        begin, end = ("<!-- fixed -->", "<!-- /fixed -->")
        if not self.configurable:
            begin, end = ("<!-- configurable -->", "<!-- /configurable -->")
        while begin in text:
            before, rest = text.split(begin, 1)
            if end not in rest:
                file = self.folder / self.page
                raise ConfigError(f"{file} has a {begin} without a {end} after it.")
            text = before + rest.split(end, 1)[1]
        text = re.sub(r"<!-- /?(fixed|configurable) -->\n?", "", text)
        bounds = "\n".join(f"- `{k}`: {v}" for k, v in self.definition.bounds.items())
        return text.replace("{bounds}", bounds)

    def blinded(self, profile: str, primitives: Sequence[str]) -> "Task":
        """Return the task as a model is told it that should not recognise it.

        It has one profile, ``BLIND``, of the size of ``profile``, and these ``primitives``; its
        title and description are those of ``[blind]``. It is for prompts alone: nothing is judged
        by it. Raises ConfigError where the task does not say how.
        """
        blind, sequence = self.definition.blind, self.definition.sequence
        if blind is None or sequence is None:
            raise ConfigError(
                f"Task {self.name} cannot be blind.",
                cause=f"{self.folder / 'task.toml'} has no table [blind], which says what a model "
                "is told instead of the task's own names",
                remedy="leave --blind out; docs/guides/tasks-own.md says what [blind] holds",
            )
        told = sequence.model_copy(update={"primitives": tuple(primitives), "designs": {}})
        chosen = self.profile(profile).model_copy(update={"about": "the task above says its size"})
        update = {"title": blind.title, "sequence": told, "profiles": {BLIND: chosen}}
        return Task(
            self.folder, self.definition.model_copy(update=update), self.variant, blind.description
        )

    def blind_hash(self, profile: str) -> str:
        """Hash of all that a blind model is told of the task, besides the names of primitives."""
        task = self.blinded(profile, ())
        blind = self.definition.blind
        words = blind.model_dump_json() if blind else ""
        return digest(f"{words}\0{task.description(BLIND)}")

    def prepare(
        self,
        profile: str,
        root: Path,
        progress: Progress,
        overrides: Mapping[str, Value] = MappingProxyType({}),
    ) -> tuple[Path, Manifest]:
        """Make the data if they are missing; return their folder and manifest.

        ``overrides`` replace values of the profile's ``data``. Raises ConfigError if the profile
        has no value of that name, or the new value is not in the task's ``choices``.
        """
        chosen = self.profile(profile)
        for name, value in overrides.items():
            if name not in chosen.data:
                raise ConfigError(
                    f"The data of {self.name} have no choice of {name}.",
                    remedy=f"{self.name} can be told: {', '.join(chosen.data)}",
                )
            if value not in (known := self.definition.choices.get(name, (value,))):
                raise ConfigError(
                    f"The data of {self.name} know no {name} {value!r}.",
                    remedy=did_you_mean(str(value), [str(one) for one in known]),
                )
        data = {**chosen.data, **overrides}
        self.check(profile)
        path = module.prepare(self, profile, data, root, progress)
        set_modes(path)
        return path, module.manifest_of(path)

    def check(self, profile: str) -> None:
        """Raise ConfigError if the task's files show that no submission could be scored.

        Checks the description, designs, runner, and the settings that runner and judge read.
        """
        chosen, files = self.profile(profile), self.runner_files()
        self.description(profile)
        if self.definition.blind:
            self.blind_hash(profile)
        self.designs(profile)
        read = settings_read(path for path in files.values() if path.suffix == ".py")
        wanted = [("settings", key, place) for key, place in read.items()]
        kind = KINDS.find(self.definition.kind)
        wanted += [(table, key, "the judge") for table, key in kind.reads]
        for table, key, reader in wanted:
            given = getattr(chosen, table)
            if key not in given:
                file = self.folder / "task.toml"
                where = place_in(file, ("profiles", profile, table))
                remedy = f"add it; is it {did_you_mean(key, given)}" if given else "add it"
                if key in read:
                    remedy += f"; a runner of your own may settings.get({key!r}, DEFAULT)"
                raise ConfigError(
                    f"{file}, {where}: {table} of profile {profile} has no {key}.",
                    cause=f"{reader} reads it",
                    remedy=remedy,
                )

    def designs(self, profile: str | None = None) -> list[Design]:
        """Return the reference submissions, in the order in which they are tried.

        Of a task with a ``sequence``: those that fit the profile's number of layers, or without a
        profile all of them, each as long as its pattern.
        """
        sequence = self.definition.sequence
        if sequence is None:
            return [self._design(name) for name in self.definition.designs]
        found = []
        for name, pattern in sequence.designs.items():
            layers = architecture.names(pattern.layers, sequence.primitives)
            times, rest = divmod(self.layers(profile), len(layers)) if profile else (1, 0)
            if not rest:
                text = architecture.write(layers * times)
                files = {self.definition.files[0]: text}
                found.append(Design(name=name, summary=pattern.about, files=files))
        return found

    def self_test(self) -> Design | None:
        """Return the design that tests the sandbox: ``self_test``, else the first, else None."""
        if (self.folder / "designs" / "self_test.py").is_file():
            return self._design("self_test")
        return next((self._design(name) for name in self.definition.designs[:1]), None)

    def knobs(self, profile: str) -> dict[str, Knob]:
        """Return what an agent may vary: the design's knobs; if configurable, also the bounds.

        Of a task with a ``sequence``: each of its layers.
        """
        if sequence := self.definition.sequence:
            choice = Knob(choices=sequence.primitives)
            return {f"layer_{i + 1:02}": choice for i in range(self.layers(profile))}
        bounds = self.definition.bounds if self.configurable else {}
        return {**self.definition.knobs, **bounds}

    def render(self, values: Mapping[str, Value]) -> dict[str, str]:
        """Return the submission: ``designs/searchable.py`` with these values of the knobs.

        Of a task with a ``sequence``: the architecture with these layers.
        """
        if self.definition.sequence:
            layers = [str(value) for _, value in sorted(values.items())]
            return {self.definition.files[0]: architecture.write(layers)}
        file = self.folder / "designs" / "searchable.py"
        try:
            source = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{file}, which the knobs of {self.name} are for, cannot be read.",
                cause=str(error),
            ) from error
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
        """Return the runner's files: name in the sandbox → path here. Raises ConfigError."""
        paths = [located(self.folder, name) for name in self.definition.runner]
        for path in paths:
            if not path.is_file():
                raise ConfigError(
                    f"Task {self.name} names a runner that is not there: {path}.",
                    remedy=f"runner takes paths from {self.folder}, or {OURS}PATH",
                )
        return {path.name: path for path in paths}

    def hash(self, profile: str) -> str:
        """Hash of all that defines the task at this profile; scores compare only if it is equal."""
        parts = [
            self.name,
            profile,
            self.profile(profile).model_dump_json(exclude={"evaluation"}),
            json.dumps({k: v.model_dump() for k, v in self.definition.bounds.items()}),
            self.description(profile),
            self.definition.writes,
        ]
        if self.definition.sequence:
            parts.append(json.dumps(self.definition.sequence.primitives))
        parts += [
            path.read_text(errors="replace") for _, path in sorted(self.runner_files().items())
        ]
        return digest("\0".join(parts))

    def _design(self, name: str) -> Design:
        path = self.folder / "designs" / f"{name}.py"
        if name.startswith(OURS):
            path = located(self.folder, f"{name}.py")
        elif not path.is_file():  # the designs that a family of tasks shares
            path = self.folder.parent / "designs" / f"{name}.py"
        try:
            text = path.read_text(encoding="utf-8")
            summary = (ast.get_docstring(parse(path)) or "").splitlines()[0]
        except (OSError, UnicodeDecodeError, IndexError) as error:
            raise ConfigError(
                f"Task {self.name} has no design {name}.",
                cause=f"{path} cannot be read, or does not begin with a docstring",
                remedy=f"mend it, or take it out of {self.folder / 'task.toml'}",
            ) from error
        return Design(name=path.stem, summary=summary, files={self.definition.files[0]: text})


@dataclass(frozen=True)
class Broken:
    """An invalid task folder: its task's ``name`` (empty if it cannot be read), and the error."""

    folder: Path
    name: str
    error: ConfigError


def discover() -> tuple[dict[str, Task], list[Broken]]:
    """Return every valid task by name, and the broken ones.

    Searches our own tasks, installed packages, and ``$HARNESS_TASKS_DIR``. Of two tasks with the
    same name, the second counts as broken.
    """
    families = _families()
    roots = [TASKS_DIR, *families]
    extra = os.environ.get("HARNESS_TASKS_DIR")
    if extra:
        roots.append(Path(extra))
    found: dict[str, Task] = {}
    broken = [
        Broken(root, "", ConfigError(f"{whose} says that tasks lie in {root}, which is no folder."))
        for root, whose in families.items()
        if not root.is_dir()
    ]
    files = {
        os.path.realpath(file): file
        for root in roots
        for file in sorted(_definitions(root, broken))
    }
    for file in files.values():
        try:
            definition = read_definition(file)
        except ConfigError as error:
            broken.append(Broken(file.parent, _name_in(file), error))
            continue
        for variant in definition.variants:
            task = Task(file.parent, definition, variant)
            if task.name in found:
                twice = ConfigError(
                    f"Two tasks are called {task.name}.",
                    cause=f"{found[task.name].folder} and {task.folder}",
                    remedy="give the second another name: scores of one name compare",
                )
                broken.append(Broken(file.parent, task.name, twice))
            else:
                found[task.name] = task
    return found, broken


def _definitions(root: Path, broken: list[Broken]) -> Iterator[Path]:
    """Yield the ``task.toml`` files below a folder; note folders that cannot be read."""

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            folder = Path(error.filename)
            cause = ConfigError(f"{folder} cannot be read.", cause=error.strerror or "")
            broken.append(Broken(folder, "", cause))

    for folder, _, names in os.walk(root, onerror=note):
        if "task.toml" in names:
            yield Path(folder, "task.toml")


def _families() -> dict[Path, str]:
    """Return the task folders of packages: folder → package. Imports nothing of the packages."""
    found = {}
    for point in installed(GROUP):
        top, *inner = point.value.split(".")
        for place in places(top) or (top,):
            found[Path(place, *inner)] = package(point)
    return found


def all_tasks() -> dict[str, Task]:
    """Return every valid task by name."""
    return discover()[0]


def find_task(name: str) -> Task:
    """Return a task. Raises ConfigError that says why it is broken, or names the nearest one."""
    tasks, broken = discover()
    for one in broken:
        if one.name and name in (one.name, f"{one.name}-configurable"):
            raise one.error
    if name not in tasks:
        also = "; ".join(f"{one.folder} ({one.error.message})" for one in broken)
        raise ConfigError(
            f"There is no task {name!r}.",
            cause=f"broken: {also}" if also else "",
            remedy=did_you_mean(name, tasks) + "; --tasks-dir DIR adds your own",
        )
    return tasks[name]


def _name_in(file: Path) -> str:
    """Return the task's name in an invalid ``task.toml``, or ""."""
    try:
        found = _NAME.search(file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found[1] if found else ""
