"""Prepared data as arrays: folders ``train/``, ``search/`` and ``test/`` of ``NAME.npy`` files.

Shared by all tasks with such data: data are made once, checked before reuse, and listed in a
manifest with checksums. Each task's own module makes the rows.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.base.digests import digest
from harness.base.strict import Strict
from tasks.definition import Manifest, Progress, Value
from tasks.hidden import PARAMETER, HiddenKey
from tasks.prepared import altered, checksum, prepared, write_manifest
from tasks.shared import HIDDEN, SPLITS


@dataclass(frozen=True)
class Arrays:
    """A data set, and what its manifest says of it.

    ``splits``: arrays by split and name. The manifest counts the rows of a split's last array;
    usually all arrays of a split have the same number.
    ``shape``: what judge and runner need to know of the rows. ``baselines``: scores without
    learning. ``facts``: what is worth knowing of the source, added to the manifest's parameters.
    """

    splits: Mapping[str, Mapping[str, NDArray[Any]]]
    shape: Mapping[str, int] = field(default_factory=dict)
    baselines: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Value] = field(default_factory=dict)


def _nothing(folder: Path, manifest: Manifest) -> str:
    return ""


def prepare_arrays(
    task: str,
    profile: str,
    generator: str,
    parameters: Mapping[str, Value],
    make: Callable[[], Arrays],
    root: Path,
    progress: Progress,
    *,
    key: HiddenKey | None = None,
    state: str = "",
    look: Callable[[Path, Manifest], str] = _nothing,
) -> Path:
    """Return the data folder under ``root``; if missing or faulty, write what ``make`` returns.

    ``generator`` is a version: it must change whenever the rows change. ``key``: what the hidden
    rows are drawn with; the manifest's parameters name it. ``state`` is part of the folder's name
    (``source_state``); empty means a hash of generator and parameters. ``look`` returns what else
    is wrong with an existing folder, or "". Raises ConfigError if ``root`` cannot be written, and
    what ``make`` raises.
    """
    parameters = {**parameters, **({PARAMETER: key.fingerprint} if key else {})}
    state = state or digest(generator + json.dumps(parameters, sort_keys=True))
    return prepared(
        root,
        f"{task.replace('/', '-')}-{profile}-{state}",
        task=task,
        fault=lambda folder: find_fault(folder, parameters, look),
        build=lambda folder: _write(folder, task, profile, generator, parameters, make()),
        progress=progress,
    )


def source_state(generator: str, parameters: Strict, identity: str, key: HiddenKey | None) -> str:
    """Return the ``state`` of data made from a source, which changes when its ``identity`` does."""
    fingerprint = key.fingerprint if key else ""
    return digest(generator + parameters.model_dump_json() + identity + fingerprint)


def find_fault(
    folder: Path,
    parameters: Mapping[str, Value],
    look: Callable[[Path, Manifest], str] = _nothing,
) -> str:
    """Return why ``folder`` does not hold complete data for ``parameters``, or "" if it does.

    ``look`` comes before the checksums, which are computed only if that takes under a second.
    Raises PermissionError.
    """
    try:
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
        if {name: manifest.parameters.get(name) for name in parameters} != dict(parameters):
            return "manifest.json speaks of other parameters"
        return look(folder, manifest) or altered(folder, manifest.files)
    except PermissionError:  # another user's folder, which may be complete
        raise
    except (OSError, ValueError, KeyError, EOFError) as error:  # also pydantic's and numpy's
        return f"it cannot be read ({error})"


def _write(
    folder: Path,
    task: str,
    profile: str,
    generator: str,
    parameters: Mapping[str, Value],
    made: Arrays,
) -> None:
    files, rows = {}, {}
    for split in SPLITS:
        (folder / split).mkdir()
        (folder / split).chmod(0o700 if split in HIDDEN else 0o755)
        for what, array in made.splits[split].items():
            path = folder / split / f"{what}.npy"
            try:
                np.save(path, array)
            except OSError as error:  # numpy's message names no file
                raise OSError(f"{split}/{what}.npy cannot be written: {error}") from error
            files[f"{split}/{what}.npy"] = checksum(path)
            rows[split] = len(array)
    write_manifest(
        folder,
        Manifest(
            task=task,
            profile=profile,
            generator=generator,
            parameters={**parameters, **made.facts},
            shape=dict(made.shape),
            rows=rows,
            files=files,
            baselines=dict(made.baselines),
        ),
    )
