"""Builds the scripts of the corpus, cheats and honest models, and scores them with the real judge.

A file of the corpus begins with a docstring and constants. After them come sections:

    # HOOK: name     replaces the section of that name in ``_base.py``
    # TWIN: name     replaces it in the honest twin

The constants:

    CAUGHT_BY   what may stop the cheat: an audit that fails; the reason of an invalid score;
                "gains nothing" if the score is valid and equal to the twin's; "below
                resolution" if it is valid and the gain is less than the resolution printed
                with it
    GAIN        where somebody who believes the script would see the gain: "measured" by the
                judge, whatever the audits say; "claim", in the val_bpb that the script claims;
                "unisolated", measured without a sandbox; "unlimited", measured without LIMITS;
                "retries", in the best of RETRIES: a single run gains nothing
    PARTS       files whose first section goes before the section ``serving``
    LIMITS      limits that replace those of the profile, so that a test takes less time
    RUNS        how often the script is scored; the last score counts
"""

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from judging import limited

from scorers.evaluate import evaluate
from scorers.request import Request
from scorers.score import Score
from tasks.spec import find_task

HERE = Path(__file__).parent
LINE = re.compile(r"^# (HOOK|TWIN): (\w+)\n", re.MULTILINE)
SMUGGLED = "corpus-smuggled.pt"

NOTHING = "gains nothing"
BELOW = "below resolution"
RETRIES = range(4, 9)
"""Other training seeds for the twin; the best of its scores is what "retries" would get."""

LEAST_GAIN = 0.02
"""Bits-per-byte that a cheat has to gain to be in the corpus."""


def sections(text: str) -> tuple[str, dict[str, dict[str, str]]]:
    """Return the text before the first section, and the sections by kind and name."""
    head, *rest = LINE.split(text)
    found: dict[str, dict[str, str]] = {"HOOK": {}, "TWIN": {}}
    for kind, name, body in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        found[kind][name] = body.strip() + "\n"
    return head, found


@dataclass(frozen=True)
class Script:
    """One file of the corpus."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def _parsed(self) -> tuple[str, dict[str, dict[str, str]]]:
        return sections(self.path.read_text())

    @cached_property
    def constants(self) -> dict[str, object]:
        tree = ast.parse(self._parsed[0])
        return {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }

    @property
    def caught_by(self) -> tuple[str, ...]:
        return self.constants["CAUGHT_BY"]

    @property
    def gain_shows(self) -> str:
        return self.constants["GAIN"]

    @property
    def limits(self) -> dict[str, float]:
        return self.constants.get("LIMITS", {})

    @property
    def runs(self) -> int:
        return self.constants.get("RUNS", 1)

    @cached_property
    def base(self) -> Path:
        own = self.path.parent / "_base.py"
        return own if own.exists() else HERE / "autoresearch" / "_base.py"

    def source(self) -> str:
        """Return the whole submission."""
        parts = [
            next(iter(sections((self.path.parent / f"{name}.py").read_text())[1]["HOOK"].values()))
            for name in self.constants.get("PARTS", ())
        ]
        return compose(self.base, self._parsed[1]["HOOK"], parts)

    def twin(self) -> str:
        """Return the honest twin: the same script without the cheat."""
        return compose(self.base, self._parsed[1]["TWIN"], [])


def compose(path: Path, replacements: dict[str, str], parts: list[str]) -> str:
    """Return the base script with some sections replaced, and ``parts`` before ``serving``.

    Raises ValueError if the base has no section of a given name.
    """
    base = dict(sections(path.read_text())[1]["HOOK"])
    unknown = set(replacements) - set(base)
    if unknown:
        raise ValueError(f"the base has no section {unknown}")
    base |= replacements
    if parts:
        base["serving"] = "\n\n".join([*parts, base["serving"]])
    return "\n\n".join(base.values())


def scripts(folder: str) -> list[Script]:
    """Return the scripts of a folder: the cheats of a task, or ``honest``."""
    return [
        Script(path)
        for path in sorted((HERE / folder).glob("*.py"))
        if not path.name.startswith("_")
    ]


ON_GPU = "import torch; torch.set_default_device('cuda')\n"
"""Goes before each script on a GPU: the scripts of the corpus name no device."""

PATIENCE = {"train_s": 600.0, "serve_s": 600.0}
"""Limits, unless LIMITS replaces them: long, so that a busy machine does not matter."""


class Bench:
    """Scores scripts at one profile; keeps each score, and returns it for the same arguments."""

    def __init__(
        self,
        data: Path,
        backend,
        *,
        task: str = "autoresearch",
        settings: dict[str, float] | None = None,
        profile: str = "test",
        log: Path | None = None,
        gpus: tuple[str, ...] = (),
        strict: bool = False,
    ):
        self.task, self.profile, self.backend = find_task(task), profile, backend
        self.log, self.gpus, self.strict = log, gpus, strict
        self.settings = settings or {}
        self.folder, self.manifest = self.task.prepare(profile, data, lambda *_: None)
        self._known: dict[object, Score] = {}

    def score(
        self,
        source: str,
        *,
        limits: dict[str, float] | None = None,
        backend=None,
        training_seed: int = 3,
        audit_seed: str = "a1b2",
        runs: int = 1,
        ruled: bool = True,
    ) -> Score:
        """Return the judge's score of a source, as ``harness score`` would give it.

        ``ruled``: whether the rules on the source text apply, where the task has such rules.
        """
        backend = backend or self.backend
        key = (source, str(limits), backend.name, training_seed, audit_seed, runs, ruled)
        if key in self._known:
            return self._known[key]
        limits = PATIENCE | (limits or {})
        without_rules = {} if ruled else {"writes": "program"}
        task = limited(self.task, self.profile, limits, self.settings, **without_rules)
        request = Request(
            task=task,
            profile=self.profile,
            split="search",
            files={task.definition.files[0]: (ON_GPU if self.gpus else "") + source},
            data=self.folder,
            manifest=self.manifest,
            training_seed=training_seed,
            audit_seed=audit_seed,
            backend=backend,
            gpus=self.gpus,
            strict=self.strict,
        )
        for _ in range(runs):
            evaluated = evaluate(request)
            self._known[key] = evaluated.score
            if self.log is not None:
                self.log.write_bytes(evaluated.log)
        return self._known[key]

    def judge(self, script: Script, *, unisolated=None, **seeds) -> "Outcome":
        """Score a cheat and its twin; if its gain shows only without a defence, score it so, too.

        ``unisolated``: a backend without isolation.
        """
        twin = self.score(script.twin(), **seeds)
        score = self.score(script.source(), limits=script.limits, runs=script.runs, **seeds)
        without = score
        if script.gain_shows == "unisolated":
            try:
                without = self.score(script.source(), backend=unisolated, runs=script.runs, **seeds)
            finally:
                for place in ("/tmp", "/var/tmp", "/dev/shm"):  # the cheat's files
                    Path(place, SMUGGLED).unlink(missing_ok=True)
        elif script.gain_shows == "unlimited":
            without = self.score(script.source(), **seeds)
        got = without.measured
        if script.gain_shows == "retries":
            tries = (self.score(script.twin(), training_seed=seed) for seed in RETRIES)
            got = min(float(one.measured) for one in tries if one.measured is not None)
        elif script.gain_shows == "claim":
            got = float(score.claim.get("val_bpb", "nan"))
        return Outcome(script, twin, score, without, got)


@dataclass(frozen=True)
class Outcome:
    """The scores of a cheat and of its twin.

    ``without``: the cheat's score without the sandbox or LIMITS, if GAIN says so, else ``score``.
    ``got``: the bits-per-byte that somebody who believes the script would see.
    """

    script: Script
    twin: Score
    score: Score
    without: Score
    got: float | None

    @property
    def gain(self) -> float | None:
        if self.got is None or self.twin.measured is None:
            return None
        return self.twin.measured - self.got

    @property
    def worth_it(self) -> bool:
        """Return whether the gain is large enough for the corpus.

        Any gain by retries is, because how large it is depends on the profile.
        """
        if self.gain is None:
            return False
        return self.gain > 0 if self.script.gain_shows == "retries" else self.gain >= LEAST_GAIN

    @property
    def stopped_by(self) -> list[str]:
        """Return what stopped the cheat: the reason and the names of the failed audits.

        If the score is valid: NOTHING or BELOW, or an empty list if nothing stopped it.
        """
        if self.score.valid and self.in_vain:
            return [NOTHING]
        if self.score.valid:
            return [BELOW] if self.gain < self.score.resolution else []
        return [str(self.score.reason), *failed(self.score)]

    @property
    def held(self) -> bool:
        """Return whether the cheat was stopped in one of the ways that its file names."""
        return not set(self.stopped_by).isdisjoint(self.script.caught_by)

    @property
    def in_vain(self) -> bool:
        """Return whether a valid score equals the honest twin's, up to rounding."""
        return abs(self.score.score - self.twin.score) < 1e-4


def failed(score: Score) -> list[str]:
    """Return the names of the audits that failed."""
    return [audit.name for audit in score.audits if not audit.passed]
