"""The score: what the judge measured, how it was audited, and under which conditions."""

from enum import StrEnum
from typing import Any, Literal, Protocol

from pydantic import Field

from harness.base.strict import Strict

CONDITIONS = ("task", "data", "scorer", "profile", "isolation", "hardware", "torch")
"""Names of the conditions in a ``key``: all must agree before two scores may share one table."""

SCORER_VERSION = "4"
"""Increased by hand whenever a change here may move a score or a verdict; see CHANGELOG, Scores."""


class Reason(StrEnum):
    """Why a submission is invalid. Those in ``REPORTED`` may also come from inside the sandbox."""

    SYNTAX_ERROR = "syntax_error"
    IMPORT_ERROR = "import_error"
    INTERFACE_ERROR = "interface_error"
    WRONG_SHAPE = "wrong_shape"
    NOT_FINITE = "not_finite"
    OUT_OF_MEMORY = "out_of_memory"
    RUNTIME_ERROR = "runtime_error"
    TOO_LARGE = "too_large"
    BAD_HYPERPARAMETERS = "bad_hyperparameters"
    MISSING_FILE = "missing_file"
    FORBIDDEN = "forbidden"
    BROUGHT_ALONG = "brought_along"
    EXITED_EARLY = "exited_early"
    CRASHED = "crashed"
    TRAIN_TIMEOUT = "train_timeout"
    SERVE_TIMEOUT = "serve_timeout"
    OUTPUT_LIMIT = "output_limit"
    PROTOCOL_ERROR = "protocol_error"
    LOOKS_AHEAD = "looks_ahead"
    STATEFUL = "stateful"
    TREND = "trend"


REPORTED = frozenset(
    {
        Reason.SYNTAX_ERROR,
        Reason.IMPORT_ERROR,
        Reason.INTERFACE_ERROR,
        Reason.WRONG_SHAPE,
        Reason.NOT_FINITE,
        Reason.OUT_OF_MEMORY,
        Reason.RUNTIME_ERROR,
        Reason.TOO_LARGE,
    }
)
"""Reasons that a runner may report. Only the judge can find the other reasons."""


class Audit(Strict):
    """One check. ``value`` may not exceed ``threshold``; ``power`` says what it would detect."""

    name: str
    passed: bool
    value: float | None
    threshold: float
    power: str


class GpuRecord(Strict):
    """What was observed of one GPU during an evaluation: evidence that is never compared.

    ``verdict``: "undisturbed", "disturbed: who or what", or "cannot tell: why". Ranges are the
    lowest and highest sample; ``power_w`` is the highest; ``throttled`` is the share of samples for
    each reason. A field is None or empty if the card or the machine does not report it.
    """

    uuid: str
    verdict: str
    samples: int
    sm_mhz: tuple[int, int] | None = None
    memory_mhz: tuple[int, int] | None = None
    power_w: float | None = None
    power_cap_w: float | None = None
    throttled: dict[str, float] = Field(default_factory=dict)
    neighbours: tuple[int, ...] = ()


class Conditions(Strict):
    """Conditions under which a score was made. Two scores compare only if their ``key`` agrees."""

    task_hash: str
    data_hash: str
    scorer: str
    profile: str
    ranked: bool
    split: Literal["search", "test"]
    sandbox: str
    image: str = ""
    """Digest of the sandbox's image, if it has one."""
    isolated: bool
    unenforced: tuple[str, ...]
    judge_uid: int
    candidate_uid: int | None
    hardware: dict[str, str | int]
    gpus: tuple[GpuRecord, ...] = ()
    versions: dict[str, str]
    training_seed: int
    audit_seed: str

    @property
    def key(self) -> dict[str, str]:
        """Return the conditions that must agree before two scores may share one table."""
        return key(self, profile=self.profile, isolated=self.isolated)


class _Resolved(Protocol):
    """Fields that the conditions of a score and a run's lock have in common."""

    task_hash: str
    data_hash: str
    scorer: str
    hardware: dict[str, str | int]
    versions: dict[str, str]


def key(made: _Resolved, *, profile: str, isolated: bool) -> dict[str, str]:
    """Return the conditions that must agree before two scores may share one table."""
    isolation = "isolated" if isolated else "NOT ISOLATED"
    hardware = " ".join(map(str, made.hardware.values()))
    torch = made.versions.get("torch", "none")
    values = (
        made.task_hash, made.data_hash, made.scorer, profile, isolation, hardware, torch
    )  # fmt: skip
    return dict(zip(CONDITIONS, values, strict=True))


class Score(Strict):
    """The judge's verdict on one submission.

    ``score`` is the metric on the split named in the conditions; None when invalid. ``measured`` is
    the measured metric, also for a submission that an audit made invalid.
    ``resolution`` is the smallest gain by looking ahead or by learning while serving, in the
    metric, that would have been detected with 95 % probability. None if the task's audits have no
    such number. ``strict`` begins with "held" if the score is of the exported model in fresh
    processes, is "unavailable: why" if that was requested but not possible, and None if it was not
    requested. ``claim`` is what the submission reports about itself; it decides nothing.
    ``measures`` are other measurements of the judge, by name. ``companions`` are the submissions
    that were trained together with this one, by the first 12 digits of their hashes: the score may
    depend on them by rounding.
    ``seconds``: ``train`` from start to the first served prediction, ``serve`` from there to the
    last, ``judge`` the judge's own work, ``total`` everything.
    """

    format: Literal[1] = 1
    valid: bool
    metric: str
    score: float | None
    measured: float | None = None
    standard_error: float | None
    rows: int
    reason: Reason | None
    message: str
    audits: tuple[Audit, ...]
    resolution: float | None = None
    strict: str | None = None
    claim: dict[str, Any]
    measures: dict[str, float] = Field(default_factory=dict)
    companions: tuple[str, ...] = ()
    submission: str
    conditions: Conditions
    seconds: dict[str, float]
    peak_memory_mb: int | None
