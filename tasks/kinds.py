"""Kinds of task by name: the metric of a submission, and the judge's examiner that measures it.

A new kind is an entry here, or one that a package adds (docs/guides/extending.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.base.registry import Registry, type_fault
from tasks.metrics import METRICS

SHAPE = ("length", "vocabulary", "classes")


def _any_data(split: Path, rows: int, shape: Mapping[str, int]) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of task. ``metric``: the name of the metric that scores it.

    ``examiner`` is the address, ``module:class``, of the ``scorers.judge.Examiner`` that holds the
    hidden rows; the judge imports it, ``tasks`` does not. ``reads`` are the (table, key) pairs of a
    profile that it reads. ``data_fault`` returns what is wrong with the folder of a split, or "";
    it gets the number of rows and the shape that the manifest claims, and may raise OSError
    and ValueError. ``together`` is the address of a ``scorers.request.Together``, for a kind whose
    candidates can be trained together: it gets all waiting candidates, even a single one, and the
    examiner is not used. If no ``examiner`` is named, a submission is data and not a program: none
    of it runs, so it needs no sandbox and no runner.
    """

    metric: str
    examiner: str = ""
    reads: tuple[tuple[str, str], ...] = ()
    data_fault: Callable[[Path, int, Mapping[str, int]], str] = _any_data
    together: str = ""

    @property
    def runs_code(self) -> bool:
        """Whether code of the submission runs, in a sandbox."""
        return bool(self.examiner)


def rows_fault(split: Path, rows: int, shape: Mapping[str, int]) -> str:
    """Return why a split is not valid rows of token ids, each with a class, or "" if it is.

    ``tokens.npy``: integers (rows, length), below ``vocabulary``; ``labels.npy``: integers (rows,),
    below ``classes``. Raises OSError, ValueError.
    """
    import numpy as np

    absent = [key for key in SHAPE if shape.get(key, 0) < 1]
    if absent:
        return f"shape in manifest.json says no {absent[0]}; wanted: {', '.join(SHAPE)}"
    width = shape["length"] * shape.get("documents", 1)
    wanted = {
        "tokens": ((rows, width), shape["vocabulary"]),
        "labels": ((rows,), shape["classes"]),
    }
    for what, (sizes, end) in wanted.items():
        name = f"{split.name}/{what}.npy"
        array = np.load(split / f"{what}.npy", mmap_mode="r", allow_pickle=False)
        if array.dtype.kind not in "iu":
            return f"{name} is of {array.dtype}; wanted: integers"
        if array.shape != sizes:
            return f"{name} has the shape {array.shape}; wanted: {sizes}, as manifest.json says"
        if not array.size:
            return f"{name} holds no rows"
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= end:
            return f"{name} holds {low} to {high}; wanted: 0 to {end - 1}, as manifest.json says"
    return ""


RECIPE = (
    "layers", "dim", "heads", "mlp_dim", "state", "expansion", "head_dim", "convolution",
    "epochs", "batch_size", "learning_rate", "weight_decay", "final_rate",
)  # fmt: skip
"""The settings by which proxies are built and trained (``scorers.proxies``)."""

IGNORED = -100
"""The target of a position that is not scored, as in torch."""


def parts_fault(split: Path, rows: int, shape: Mapping[str, int]) -> str:
    """Return why a split is not valid token tasks, one for each ``NAME.vocabulary``, or "".

    ``NAME_inputs.npy`` and ``NAME_targets.npy``: integers (rows, ``NAME.length``), inputs below
    the vocabulary, targets below it or IGNORED. Raises OSError, ValueError.
    """
    import numpy as np

    parts = [key.removesuffix(".vocabulary") for key in shape if key.endswith(".vocabulary")]
    if not parts:
        return "shape in manifest.json says no NAME.vocabulary: there is no part to train on"
    for part in parts:
        end, shapes = shape[f"{part}.vocabulary"], []
        for what, least in (("inputs", 0), ("targets", IGNORED)):
            name = f"{split.name}/{part}_{what}.npy"
            array = np.load(split / f"{part}_{what}.npy", mmap_mode="r", allow_pickle=False)
            if array.dtype.kind not in "iu" or array.ndim != 2 or len(array) < 2 or not array.size:
                found = f"{array.dtype} {array.shape}"
                return f"{name} is of {found}; wanted: integers (rows, length), two rows or more"
            wrong = (array >= end) | ((array < 0) & (array != least))
            if wrong.any():
                return f"{name} holds {int(array[wrong][0])}; wanted: 0 to {end - 1}"
            shapes.append(array.shape)
        if shapes[0] != shapes[1] or shapes[0][1] != shape.get(f"{part}.length"):
            return f"{part} of {split.name} has the shapes {shapes}; length is in manifest.json"
    return ""


def _fault(_name: str, kind: Any) -> str:  # noqa: ANN401 (whatever it is)
    if fault := type_fault(Kind, kind):
        return fault
    if not kind.examiner and not kind.together:
        return "it names neither an examiner nor a function that trains candidates together"
    if kind.metric not in METRICS:
        return f"its metric, {kind.metric!r}, is unknown; there are {', '.join(METRICS.names())}"
    return ""


_PROXIES = partial(
    Kind,
    together="scorers.proxies.judge:train_together",
    reads=tuple(("settings", key) for key in RECIPE),
    data_fault=parts_fault,
)

KINDS: Registry[Kind] = Registry(
    "kind of task",
    "harness.kinds",
    {
        "classification": Kind(
            "accuracy", "scorers.classification:Classification", data_fault=rows_fault
        ),
        "language_modeling": Kind(
            "bits_per_byte",
            "scorers.language:Language",
            reads=(
                ("settings", "max_batch"),
                *(("judge", key) for key in ("audit_rows", "gap", "twins", "repeats")),
            ),
        ),
        "proxies": _PROXIES("token_accuracy"),
        # Scored by the loss. Where the manifest's baselines say the "entropy" of the
        # source, the loss of its true model, the judge measures also the excess over it.
        "proxies_loss": _PROXIES("cross_entropy"),
    },
    _fault,
)
