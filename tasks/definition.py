"""The schema of ``task.toml`` and of the manifest of prepared data: which values are valid.

``tasks.spec`` finds and reads tasks; ``tasks.prepared`` writes manifests.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from harness.base.digests import digest
from harness.base.strict import Strict
from tasks import architecture
from tasks.kinds import KINDS
from tasks.metrics import METRICS, Direction, MetricName
from tasks.submissions import SUBMISSIONS

TASKS_DIR = Path(__file__).parent

Value = int | float | str | bool
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` during preparation."""


class Limits(Strict):
    """What one evaluation may use. ``train_s`` runs from spawn to the first served prediction."""

    train_s: Seconds
    serve_s: Seconds
    memory_mb: PositiveInt
    cpus: PositiveInt
    pids: PositiveInt = 128
    scratch_mb: PositiveInt = 1024
    source_kb: PositiveInt = 256
    max_parameters: PositiveInt | None = None


class StatedTime(Strict):
    """How long an evaluation takes, for estimates. ``basis``: on what, and how that is known."""

    seconds: Seconds
    basis: str


class Profile(Strict):
    """A task's size: ``data`` for ``prepare``, ``settings`` and ``judge`` for runner and judge.

    ``evaluation`` is for tasks whose judge trains by code of its own, in far less time than the
    limits allow. It defines nothing, and is not part of the task's hash.
    """

    about: str
    ranked: bool = True
    search_steps: PositiveInt
    device: Literal["cpu", "gpu", "any"] = "any"
    data: dict[str, Value]
    settings: dict[str, Value]
    limits: Limits
    judge: dict[str, Value] = Field(default_factory=dict)
    evaluation: StatedTime | None = None


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


class Pattern(Strict):
    """A known architecture: its ``layers`` as text, repeated as often as the model is deep."""

    layers: str
    about: str


class Sequence(Strict):
    """Submissions are sequences of ``primitives``, as many as a profile's ``layers`` says.

    ``mixers`` are those that carry information from one token to another. ``designs`` are the
    reference submissions; one whose length does not divide the number of layers is left out.
    """

    primitives: tuple[str, ...] = Field(min_length=2)
    mixers: tuple[str, ...] = ()
    designs: dict[str, Pattern] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_designs_of_its_primitives(self) -> Self:
        for name, pattern in self.designs.items():
            if not architecture.names(pattern.layers, self.primitives):  # raises ValueError, too
                raise ValueError(f"design {name} has no layers")
        return self


class Blind(Strict):
    """How a task is told to a model that should not recognise it (``harness run --blind``).

    ``description`` is a file that takes the place of ``description.md``; ``{primitives}`` in it are
    neutral names. ``words``: what else in a log or a message would name the task, and what stands
    there instead.
    """

    title: str
    description: str
    words: dict[str, str] = Field(default_factory=dict)


class Reference(Strict):
    """A published score to compare with ours. ``disputed``: there is reason to doubt it."""

    name: str
    value: float
    source: str
    profile: str = "paper"
    note: str = ""
    disputed: bool = False


class Shortcut(Strict):
    """The score of a guess that does not solve the task. A model no better learned no more."""

    name: str
    value: float
    source: str
    profile: str = "paper"


class Marks(Strict):
    """The scores with the normalised scores 0 and 1 in a profile: ``worst`` and ``best``.

    Unless ``source`` says otherwise, ``worst`` is the score of chance. ``disputed`` says why one of
    them is in doubt. They are never changed: every normalised score would move. AIRA-Design takes
    the worst score of its own runs and does not print it, so the paper's normalised scores differ.
    """

    profile: str
    worst: float
    best: float
    human: bool = False
    """Whether ``best`` is a published human result: then it is a player in the Elo table."""
    source: str
    disputed: str = ""


class Definition(Strict):
    """``task.toml`` as it is on disk.

    ``kind`` is a name in ``KINDS``. ``writes`` is a name in ``SUBMISSIONS`` and says what a
    submission is: a whole "program", or a "mechanism" inside a fixed shell, whose text may contain
    only what a mechanism needs. ``holds`` distinguishes a submission from other code: its files
    define one of these names at their top level, or call it if the name ends in ``()``.
    ``entry`` is the runner's file that trains and serves. ``frozen_entry`` is the file that serves
    an exported model in a process of its own, if the task supports that. ``needs`` are the
    modules, besides numpy, that the runner imports. A task whose kind runs no code has no runner.
    ``sequence``: a submission is an architecture, and an agent may vary each of its layers.
    ``blind``: how the task is told to a model that should not recognise it, if it can be.
    ``chance`` is the score of a blind guess. ``choices`` are the values that a run may give to an
    entry of a profile's ``data``, if not every value is valid. ``baselines`` are texts that explain
    the manifest's baselines, by
    name. ``stands_in_for`` names the task whose data this one replaces if they are not available;
    scores of the two are never compared.
    """

    format: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$")
    title: str
    kind: Annotated[str, AfterValidator(KINDS.known)]
    writes: Annotated[str, AfterValidator(SUBMISSIONS.known)] = "program"
    metric: MetricName
    direction: Direction
    module: str
    files: tuple[str, ...] = Field(min_length=1)
    holds: tuple[Annotated[str, Field(pattern=r"^[^\W\d]\w*(\(\))?$")], ...] = ()
    runner: tuple[str, ...] = ()
    entry: str = ""
    frozen_entry: str | None = None
    needs: tuple[str, ...] = ()
    variants: tuple[Literal["fixed", "configurable"], ...] = Field(("fixed",), min_length=1)
    sequence: Sequence | None = None
    blind: Blind | None = None
    bounds: dict[str, Knob] = Field(default_factory=dict)
    knobs: dict[str, Knob] = Field(default_factory=dict)
    designs: tuple[str, ...] = ()
    chance: float | None = None
    choices: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    baselines: dict[str, str] = Field(default_factory=dict)
    shortcuts: tuple[Shortcut, ...] = ()
    stands_in_for: str | None = None
    references: tuple[Reference, ...] = ()
    marks: tuple[Marks, ...] = ()
    profiles: dict[str, Profile] = Field(min_length=1)

    @field_validator("metric", "direction")
    @classmethod
    def _is_what_the_judge_measures(cls, value: str, info: ValidationInfo) -> str:
        kind = info.data.get("kind")
        if kind:
            metric = KINDS.find(kind).metric
            measured = metric, METRICS.find(metric).direction
            if value not in measured:
                raise ValueError(f"{value!r} is not what {kind} has; wanted: {measured}")
        return value

    @field_validator("entry", "frozen_entry")
    @classmethod
    def _is_of_the_runner(cls, value: str | None, info: ValidationInfo) -> str | None:
        names = [Path(file).name for file in info.data.get("runner", ())]
        if value is not None and names and value not in names:
            raise ValueError(f"{value!r} is no file of runner; wanted: {' or '.join(names)}")
        return value

    @model_validator(mode="after")
    def _has_a_runner_if_code_runs(self) -> Self:
        if bool(self.runner) != KINDS.find(self.kind).runs_code:
            wanted = "no runner, because no code of a submission runs"
            if not self.runner:
                wanted = "a runner and its entry, which train and serve a submission"
            raise ValueError(f"a task of kind {self.kind} has {wanted}")
        return self

    @model_validator(mode="after")
    def _has_layers_if_it_is_a_sequence(self) -> Self:
        for name, profile in self.profiles.items() if self.sequence else ():
            layers = profile.settings.get("layers")
            if type(layers) is not int or not 1 <= layers < 100:
                raise ValueError(f"settings of profile {name} say no layers from 1 to 99")
        return self

    @model_validator(mode="after")
    def _is_a_sequence_if_it_can_be_blind(self) -> Self:
        if self.blind and self.sequence is None:
            raise ValueError("a task without a sequence has no names that [blind] could hide")
        return self

    @field_validator("runner")
    @classmethod
    def _has_each_name_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = ["candidate.py", *(Path(file).name for file in value)]
        twice = [name for name in names if names.count(name) > 1]
        if twice:  # in the sandbox they lie in one folder, beside the judge's own file
            raise ValueError(f"two files would be called {twice[0]} in the sandbox")
        return value


class Manifest(Strict):
    """``manifest.json`` of a prepared data folder, written last: without it, no data count.

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


class TaskModule(Protocol):
    """The interface of a task's Python module."""

    def prepare(
        self, profile: str, data: Mapping[str, Value], root: Path, progress: Progress
    ) -> Path:
        """Return the data folder under ``root``; make it if it is missing or incomplete.

        Idempotent; splits ``train/``, ``search/``, ``test/`` of ``.npy`` files, and
        ``manifest.json`` (a Manifest) written last by atomic rename.
        """
        ...
