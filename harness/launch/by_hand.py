"""Score submissions outside any run, for a person who writes a mechanism by hand.

There is no agent and no search here; ``harness.store.by_hand`` makes the folders of the scores.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, Protocol, Self

from harness.base.commands import command
from harness.base.errors import ConfigError
from harness.base.files import read_text, write_whole
from harness.base.watching import unbreakable
from harness.core.asked import Asked
from harness.launch.interruptible import interruptible
from harness.search.executors import EXECUTORS
from harness.store.by_hand import record
from scorers.score import Score
from tasks.spec import Task, find_task


class Watcher(Protocol):
    """The screen, or another observer, that shows progress and events."""

    def progress(self, what: str, done: int, total: int) -> None: ...
    def observe(self, what: str, label: str, details: dict[str, Any]) -> None: ...


def read_submission(path: Path, task: Task) -> dict[str, str]:
    """Return the submission's files. Raises ConfigError naming the file that cannot be read.

    ``path`` may be a link, because the user named it; the files in a folder may not be links.
    """
    wanted = task.definition.files
    in_folder = path.is_dir()
    if in_folder:
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
            files[name] = read_text(source, follow=not in_folder)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{source} cannot be read as the submission's {name}.",
                cause=str(error),
                remedy=f"{command('new', 'DIR', task=task.name)} writes a working one",
            ) from error
    return files


class ByHand:
    """Makes the evaluations of one request, one at a time. Use it in a ``with`` statement.

    ``trusted``: the submissions are the user's own. ``hardware``: the hardware to evaluate on, if
    this machine has it. Raises ConfigError if ``strict`` is set and the task has no strict check,
    and what ``Evaluator.get_ready`` raises.
    """

    def __init__(
        self,
        asked: Asked,
        screen: Watcher,
        *,
        trusted: bool = True,
        hardware: Mapping[str, str | int] | None = None,
        strict: bool = False,
    ) -> None:
        self.asked = asked
        self.task = find_task(asked.task)
        self._strict, self._observe = strict, screen.observe
        if strict and self.task.definition.frozen_entry is None:
            raise ConfigError(
                f"{self.task.name} has no strict check.",
                cause="its submissions are not exported",
                remedy="leave --strict out",
            )
        self._evaluator = EXECUTORS.find(asked.executor)(1)
        try:
            self._place = self._evaluator.get_ready(
                asked,
                trusted=trusted,
                hardware=hardware,
                progress=screen.progress,
                observe=screen.observe,
            )
        except BaseException:
            self._evaluator.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._evaluator.close()

    def score(
        self,
        files: Mapping[str, str],
        *,
        split: Literal["search", "test"] = "search",
        seed: int = 0,
        log: Path | None = None,
    ) -> Score:
        """Train and score a submission once; its output is written to the file ``log``.

        Raises the errors listed at ``Evaluator.submit``. Ctrl-C stops the evaluation; none of its
        processes is alive after the ``with`` block.
        """
        job = self._place.job(
            self.asked,
            "submission",
            files,
            split=split,
            training_seed=seed,
            audit_seed=secrets.token_hex(8),
            strict=self._strict,
        )
        with interruptible():
            (evaluation,) = self._evaluator.submit([job], self._observe)
            evaluated = evaluation.result()
        if log is not None:
            unbreakable(write_whole)(log, evaluated.log, sync=False)
        return evaluated.score

    def keep(
        self,
        runs_dir: Path,
        name: str,
        files: Mapping[str, str],
        *,
        split: Literal["search", "test"],
        seed: int,
    ) -> tuple[Score, Path]:
        """Score as ``score`` does, keep the score under ``runs_dir``; return score and folder."""
        asked = self.asked.model_copy(update={"seed": seed})
        with record(runs_dir, asked, name, files) as folder:
            score = self.score(files, split=split, seed=seed, log=folder / "stdout.log")
            write_whole(folder / "score.json", score.model_dump_json(indent=2) + "\n")
        return score, folder


def as_result(
    asked: Asked, path: Path, scores: list[Score], beside: list[Score] | None, kept: list[Path]
) -> dict[str, Any]:
    """Return the JSON object of ``harness score``; its top level is like that of ``result.json``.

    It describes the first score, and adds ``repeats`` and ``baseline`` where they were asked for.
    """
    values = scores[0].model_dump(mode="json")
    split, split_score = scores[0].conditions.split, values.pop("score")
    result = {
        "format": values.pop("format"),
        "run": None,
        "path": str(path),
        "task": asked.task,
        "profile": asked.profile,
        "agent": None,
        "policy": None,
        "seed": asked.seed,
        "valid": values.pop("valid"),
        "metric": values.pop("metric"),
        "split": split,
        "score": split_score,
        "search_score": None if split == "test" else split_score,
        **values,
        "key": scores[0].conditions.key,
        "kept": [str(folder) for folder in kept],
    }
    if len(scores) > 1:
        result["repeats"] = spread(scores)
    if beside is not None:
        design = find_task(asked.task).designs(asked.profile)[0].name
        result["baseline"] = {"design": design, **spread(beside)}
    return result


def spread(scores: list[Score]) -> dict[str, Any]:
    """Return mean, standard deviation and raw values of repeated scores; invalid ones are null."""
    values = [s.score for s in scores if s.score is not None]
    return {
        "n": len(scores),
        "valid": len(values),
        "mean": mean(values) if values else None,
        "stdev": stdev(values) if len(values) > 1 else None,
        "scores": [s.score for s in scores],
    }
