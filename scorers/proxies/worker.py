"""The process that trains proxies: python -m scorers.proxies.worker

It reads jobs from stdin and writes reports to stdout, each a line of JSON (``protocol``). A job is
trained in a fork of this process: importing torch takes longer than a small job, and memory of a
GPU is free again when the fork has ended. The process ends when its stdin does. It runs no code of
a submission: the judge (``scorers.proxies.judge``) has read the architectures already.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # an optimiser's first step imports it, in each fork anew: a second

if torch.version.cuda:
    import triton  # noqa: F401  # as above

from scorers.proxies.blocks import Recipe
from scorers.proxies.protocol import Done, Failed, ProxyJob, Report, Step
from scorers.proxies.trainer import TokenTask, train
from tasks.definition import Value

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
"""An option of prctl: a fork gets a signal when the process that made it ends."""

EVERY_S = 0.2
"""The fewest seconds between two reports of progress."""


def main() -> None:
    """Train one job after the other until stdin ends."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            _train_and_exit(ProxyJob.model_validate_json(line))
        _, status = os.waitpid(child, 0)
        if status:
            code = os.waitstatus_to_exitcode(status)
            _say(Failed(message=f"the training process ended with {code}", memory=code == -9))


def _train_and_exit(job: ProxyJob) -> None:
    """Train a job, report the result, and end this process."""
    try:
        _say(_trained(job))
    except BrokenPipeError:  # the harness has gone
        os._exit(1)
    except Exception as error:  # noqa: BLE001 (told to the judge, which raises it)
        short = _short_of_memory(error)
        _say(Failed(message=f"{type(error).__name__}: {error}", memory=short))
    os._exit(0)


def _short_of_memory(error: BaseException | None) -> bool:
    """Say whether an error comes of too little memory: another may have hidden it on its way.

    A launch that is being recorded ends with an error of its own.
    """
    while error is not None and not isinstance(error, torch.cuda.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def _trained(job: ProxyJob) -> Done:
    device = "cpu"
    if job.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.gpu
        device = "cuda"
    torch.set_num_threads(job.threads)
    recipe = read_recipe(job.settings)
    parts = [read_task(job, name) for name in job.parts]
    steps = [recipe.steps(len(part.train[0])) for part in parts]
    results, before = {}, 0
    # The longest rows first: if memory is short, that is known at once.
    for part, own in sorted(zip(parts, steps, strict=True), key=lambda p: -p[0].train[0].shape[1]):
        report = _reporter(part.name, before, sum(steps))
        found = train(part, job.architectures, job.seeds, recipe, device=device, report=report)
        results[part.name] = tuple(found)
        before += own
    return Done(results={name: results[name] for name in job.parts})


def read_recipe(settings: Mapping[str, Value]) -> Recipe:
    """Return the recipe in a profile's settings. Raises KeyError, ValueError."""
    chosen: dict[str, Any] = {
        field.name: settings[field.name]
        for field in fields(Recipe)
        if field.name != "kernels" or field.name in settings
    }
    return Recipe(**chosen)


def read_task(job: ProxyJob, name: str) -> TokenTask:
    """Return a token task of a job with its rows. Raises OSError, ValueError."""

    def rows(folder: str) -> tuple[Any, Any]:
        places = (Path(folder, f"{name}_{what}.npy") for what in ("inputs", "targets"))
        inputs, targets = (np.load(place, allow_pickle=False) for place in places)
        return inputs, targets

    return TokenTask(
        name=name,
        vocabulary=job.shape[f"{name}.vocabulary"],
        from_last=bool(job.shape.get(f"{name}.from_last")),
        train=rows(job.train),
        held_out=rows(job.held_out),
    )


def _reporter(part: str, before: int, total: int) -> Callable[[int, int], None]:
    last = 0.0

    def report(step: int, of: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now >= last + EVERY_S or step == of:
            last = now
            _say(Step(part=part, step=before + step, total=total))

    return report


def _say(report: Report) -> None:
    sys.stdout.write(report.model_dump_json() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
