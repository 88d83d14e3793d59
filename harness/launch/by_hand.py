"""Score one submission outside any run: what a person does who writes a mechanism."""

import secrets
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, Protocol

from harness.base.commands import command
from harness.base.errors import ConfigError
from harness.base.files import read_text
from harness.base.watching import unbreakable
from harness.launch.ready import get_ready
from harness.search.evaluator import Job
from scorers.score import Score
from scorers.self_test import evaluate
from tasks.spec import Task


class Watcher(Protocol):
    """Whoever shows the progress."""

    def progress(self, what: str, done: int, total: int) -> None: ...
    def observe(self, what: str, details: dict[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...


def read_submission(path: Path, task: Task) -> dict[str, str]:
    """Return the submission's files. Raises ConfigError naming what is missing.

    ``path`` may be a link, for the user named it; what its folder holds may not.
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
    """Evaluations of one task, profile and split by hand. The user's own code is trusted.

    Has the GPU, where there is one, until ``close``.
    """

    def __init__(
        self,
        task: Task,
        profile: str,
        split: Literal["search", "test"],
        sandbox: str,
        data: dict[str, str],
        screen: Watcher,
        *,
        strict: bool = False,
    ) -> None:
        self.task, self.profile, self.split, self.screen = task, profile, split, screen
        self._say = unbreakable(screen.say)
        if strict and task.definition.frozen_entry is None:
            raise ConfigError(
                f"{task.name} has no strict check.",
                cause="its submissions are not exported",
                remedy="leave --strict out",
            )
        self._strict = strict
        self._ready = get_ready(
            task,
            profile,
            sandbox,
            trusted=True,
            progress=screen.progress,
            overrides=data,
            say=screen.say,
        )
        if self._ready.warning:
            screen.say(f"warning: {self._ready.warning}")

    def close(self) -> None:
        """Give the GPU back. Idempotent."""
        self._ready.close()

    def score(
        self, files: dict[str, str], *, seed: int, repeat: int = 1, log: Path | None = None
    ) -> list[Score]:
        """Train and score ``repeat`` times, with seeds from ``seed`` on."""
        scores = []
        for index in range(repeat):
            place = log if repeat == 1 or log is None else log.with_suffix(f".{index}{log.suffix}")
            job = Job(
                "submission", files, self.split, seed + index, secrets.token_hex(8), place or Path()
            )
            request = replace(self._ready.request(job), strict=self._strict)
            scores.append(evaluate(request, log=place, observe=self.screen.observe))
            if repeat > 1:
                last = scores[-1]
                outcome = last.reason if last.score is None else f"{last.score:.4f}"
                self._say(f"{index + 1} of {repeat}: {outcome}")
        return scores

    def as_result(
        self, path: Path, seed: int, scores: list[Score], beside: list[Score] | None
    ) -> dict[str, Any]:
        """Return the JSON object of ``harness score``; the same top level as a run's.

        It is that of the first score, with ``repeats`` and ``baseline`` where asked for.
        """
        values = scores[0].model_dump(mode="json")
        split_score = values.pop("score")
        result = {
            "format": values.pop("format"),
            "run": None,
            "path": str(path),
            "task": self.task.name,
            "profile": self.profile,
            "agent": None,
            "policy": None,
            "seed": seed,
            "valid": values.pop("valid"),
            "metric": values.pop("metric"),
            "split": self.split,
            "score": split_score,
            "search_score": None if self.split == "test" else split_score,
            **values,
        }
        if len(scores) > 1:
            result["repeats"] = spread(scores)
        if beside is not None:
            result["baseline"] = {"design": self.task.definition.designs[0], **spread(beside)}
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
