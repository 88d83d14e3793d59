"""Score one submission outside any run: what a person does who writes a mechanism."""

import secrets
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.errors import ConfigError
from harness.runs.launch import get_ready
from harness.search.evaluator import Job
from scorers.evaluate import evaluate
from scorers.score import Score
from tasks.spec import Task

MAX_FILE = 16 << 20


class Watcher(Protocol):
    """Whoever shows the progress."""

    def progress(self, what: str, done: int, total: int) -> None: ...
    def observe(self, what: str, details: dict[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...


def read_submission(path: Path, task: Task) -> dict[str, str]:
    """Return the submission's files. Raises ConfigError naming what is missing."""
    wanted = task.definition.files
    if path.is_dir():
        sources = {name: path / name for name in wanted}
    elif len(wanted) == 1:
        sources = {wanted[0]: path}
    else:
        raise ConfigError(
            f"{path} is one file; {task.name} needs a folder with {', '.join(wanted)}."
        )
    files: dict[str, str] = {}
    for name, source in sources.items():
        try:
            if source.stat().st_size > MAX_FILE:
                raise ConfigError(f"{source} is larger than {MAX_FILE >> 20} MiB.")
            files[name] = source.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{source} cannot be read as the submission's {name}.",
                cause=str(error),
                remedy=f"harness new --task {task.name} DIR writes a working one",
            ) from error
    return files


def score_by_hand(
    task: Task,
    profile: str,
    split: Literal["search", "test"],
    files: dict[str, str],
    *,
    seed: int,
    sandbox: str,
    log: Path | None,
    screen: Watcher,
) -> Score:
    """Prepare, evaluate, return the score. The user's own code may run without isolation."""
    ready = get_ready(task, profile, sandbox, trusted=True, progress=screen.progress)
    if ready.warning:
        screen.say(f"warning: {ready.warning}")
    job = Job("submission", files, split, seed, secrets.token_hex(8), log or Path())
    return evaluate(ready.request(job), log=log, observe=screen.observe)


def as_result(score: Score, task: Task, path: Path, profile: str, seed: int) -> dict[str, Any]:
    """Return the JSON object of ``harness score``; the same top level as a run's."""
    values = score.model_dump(mode="json")
    split_score = values.pop("score")
    test = score.conditions.split == "test"
    return {
        "format": values.pop("format"),
        "run": None,
        "path": str(path),
        "task": task.name,
        "profile": profile,
        "agent": None,
        "policy": None,
        "seed": seed,
        "valid": values.pop("valid"),
        "metric": values.pop("metric"),
        "split": score.conditions.split,
        "score": split_score,
        "search_score": None if test else split_score,
        **values,
    }
