"""Single scores, made by hand without a run: a folder each, in ``scores`` under the runs folder.

asked.toml     the request                        stdout.log   what the submission printed
model.py …     the submission's files             score.json   written last, whole

``harness.launch.by_hand`` evaluates the submission and writes the last two files.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import tomlkit

from harness.base.errors import ConfigError
from harness.base.files import fresh_folder, write_whole
from harness.base.paths import plain_name
from harness.core.asked import Asked
from harness.store.rundir import SCORES

ASKED = {"format", "task", "profile", "seed", "sandbox", "data"}
"""The fields of a request that concern a single score."""


@contextmanager
def record(runs_dir: Path, asked: Asked, name: str, files: Mapping[str, str]) -> Iterator[Path]:
    """Make the folder of one score, for the caller to fill; it is removed if the caller fails.

    Raises ConfigError where no folder can be made.
    """
    parts = (f"{datetime.now(UTC):%Y%m%d-%H%M%S}", asked.task, asked.profile, name, asked.seed)
    stem = plain_name("_".join(str(part) for part in parts))
    try:
        path = fresh_folder(runs_dir / SCORES, stem)
    except OSError as error:
        raise ConfigError(
            f"{runs_dir} cannot hold scores.", cause=str(error), remedy="--runs-dir DIR"
        ) from error
    try:
        write_whole(path / "asked.toml", tomlkit.dumps(asked.model_dump(include=ASKED)))
        for file, text in files.items():
            write_whole(path / file, text)
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
