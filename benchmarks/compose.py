"""Measures the trainer of proxies: how fast many are trained together, and what its settings are.

    python benchmarks/compose.py speed [--profile paper] [--together 1 8 32 64] [--compiled]
    python benchmarks/compose.py recipe [--tasks TASK] [--rates 5e-4 1e-3 2e-3] [--decays 0 0.1]
    python benchmarks/compose.py noise [--tasks TASK] [--epochs 40] [--seeds 5]

``speed``: random strings on selective copying, trained together by our kernels and by torch, and
one alone (by torch eagerly, compiled, and recorded as a CUDA graph; by our kernels recorded), in
the same run. TFLOP/s count products of matrices, and the causal half of attention; "busy" is the
share of time in which the GPU computes. ``recipe``: a task's reference designs under
each pair of learning rate and weight decay, on search rows: MAD (arXiv 2403.17844) chooses by its
test rows.
``noise``: each design under several seeds, and how far one seed's ranking agrees with another's.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from unittest.mock import patch

import torch
from scipy.stats import kendalltau

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scorers.proxies import trainer
from scorers.proxies.blocks import Recipe, parameters
from scorers.proxies.judge import SCORED
from scorers.proxies.protocol import ProxyJob
from scorers.proxies.trainer import TokenTask, train
from scorers.proxies.worker import read_recipe, read_task
from tasks import architecture
from tasks.spec import find_task

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Stop(Exception):
    """Enough steps were timed."""


class Bench:
    """One task at one profile: its data, and its recipe."""

    def __init__(self, name: str, profile: str, folder: Path) -> None:
        self.task, self.profile = find_task(name), profile
        data, manifest = self.task.prepare(profile, folder, lambda *_: None)
        settings = self.task.profile(profile).settings
        self.job = ProxyJob(
            architectures=(), seeds=(), train=str(data / "train"), held_out=str(data / "search"),
            shape=manifest.shape, settings=settings, gpu="", threads=1,
        )  # fmt: skip
        self.recipe = read_recipe(settings)
        self.layers = int(settings["layers"])
        self.parts = [read_task(self.job, name) for name in self.job.parts]

    def designs(self) -> dict[str, tuple[str, ...]]:
        """Return the reference designs of this depth by name."""
        primitives = self.task.definition.sequence.primitives
        found = self.task.designs(self.profile)
        return {d.name: architecture.names(d.files["architecture.txt"], primitives) for d in found}

    def random(self, count: int) -> list[tuple[str, ...]]:
        """Return random strings, the same in every run."""
        rng, primitives = Random(1), self.task.definition.sequence.primitives
        return [tuple(rng.choices(primitives, k=self.layers)) for _ in range(count)]

    def values(self, strings: Sequence[Sequence[str]], seed: int, recipe: Recipe) -> list:
        """Return what is scored, accuracy or loss, of each string on each part, on search rows."""
        scored = SCORED[self.task.definition.metric][0]
        each = [
            train(part, strings, [seed] * len(strings), recipe, device=DEVICE, report=nothing)
            for part in self.parts
        ]
        return [[getattr(one, scored) for one in column] for column in zip(*each, strict=True)]


def nothing(*_: object) -> None:
    """Report nothing."""


def seconds_a_step(
    part: TokenTask, strings: Sequence[Sequence[str]], recipe: Recipe, steps: int
) -> float:
    """Return the median of a step's seconds, after a third of the steps as warm-up."""
    ends = []

    def report(step: int, _: int) -> None:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
        if step == steps:
            raise Stop

    with contextlib.suppress(Stop):
        train(part, strings, [0] * len(strings), recipe, device=DEVICE, report=report)
    each = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    return statistics.median(each[steps // 3 :])


def flop_a_step(part: TokenTask, strings: Sequence[Sequence[str]], recipe: Recipe) -> float:
    """Return the floating-point operations of a step: forwards, and backwards twice that."""
    length = part.train[0].shape[1]
    a_token = sum(6.0 * parameters(string, recipe) for string in strings)
    a_token += sum(6.0 * length * recipe.dim * string.count("A") for string in strings)
    return a_token * length * min(recipe.batch_size, len(part.train[0]))


@contextlib.contextmanager
def in_the_way_of(way: str) -> Iterator[None]:
    """Train step by step as torch does, or compiled by it, instead of recorded."""
    with contextlib.ExitStack() as stack:
        if way != "recorded":
            stack.enter_context(patch.object(trainer, "Recorded", lambda function: function))
        if way == "compiled":
            faster = torch.compile(trainer.Population.logits)
            stack.enter_context(patch.object(trainer.Population, "logits", faster))
        yield


def busy(part: TokenTask, strings: Sequence[Sequence[str]], recipe: Recipe, steps: int) -> float:
    """Return the share of the time in which the GPU computes, after the first epochs."""
    found: list[float] = []

    def report(step: int, _: int) -> None:
        if step == steps:
            torch.cuda.synchronize()
            profiler.start()
            found.append(time.perf_counter())
        if step == 2 * steps:
            torch.cuda.synchronize()
            found.append(time.perf_counter())
            profiler.stop()
            raise Stop

    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
    with contextlib.suppress(Stop):
        train(part, strings, [0] * len(strings), recipe, device=DEVICE, report=report)
    used = sum(event.device_time_total for event in profiler.events())
    return used / 1e6 / (found[1] - found[0])


def speed(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    on_gpu = DEVICE == "cuda"
    for name in options.tasks:
        bench = Bench(name, options.profile, folder)
        part = next(p for p in bench.parts if p.name == options.part)
        plain = replace(bench.recipe, kernels="torch")
        yield f"{name}, {options.profile}, {part.name}, {bench.layers} layers, on {DEVICE}"
        alone = {}
        for kernels, way in WAYS if on_gpu else WAYS[:1]:
            if way == "compiled" and not options.compiled:
                continue
            changed = replace(bench.recipe, kernels=kernels)
            with in_the_way_of(way):
                spent = seconds_a_step(part, bench.random(1), changed, options.steps)
            alone[f"{kernels}, {way}"] = spent
            rate = flop_a_step(part, bench.random(1), plain) / spent / 1e12
            yield f"one alone, {kernels}, {way}: {1e3 * spent:.1f} ms a step, {rate:.3g} TFLOP/s"
        yield "together  kernels  ms a step  ms a string  TFLOP/s  GiB  busy  times one at a time"
        for count in options.together:
            strings = bench.random(count)
            for kernels in ("torch", "triton") if on_gpu else ("torch",):
                changed = replace(bench.recipe, kernels=kernels)
                if on_gpu:
                    torch.cuda.reset_peak_memory_stats()
                try:
                    spent = seconds_a_step(part, strings, changed, options.steps)
                    used = "    –     –"  # of a GPU only
                    if on_gpu:
                        peak = torch.cuda.max_memory_allocated() / 2**30
                        used = f"  {peak:3.0f}  {busy(part, strings, changed, 20):4.0%}"
                except torch.cuda.OutOfMemoryError:
                    yield f"{count:8d}  {kernels:7}  not enough memory"
                    continue
                rate = flop_a_step(part, strings, changed) / spent / 1e12
                times = ", ".join(f"{t * count / spent:.1f} ({way})" for way, t in alone.items())
                yield (
                    f"{count:8d}  {kernels:7}  {1e3 * spent:9.1f}  {1e3 * spent / count:11.2f}"
                    f"  {rate:7.3g}{used}  {times}"
                )


WAYS = (("torch", "eager"), ("torch", "compiled"), ("torch", "recorded"), ("triton", "recorded"))
"""How one string is trained alone: kernels, and how their launches are made."""


def recipe(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    bench = Bench(options.tasks[0], options.profile, folder)
    designs, up = bench.designs(), bench.task.definition.direction == "maximize"
    metric = bench.task.definition.metric
    yield f"{len(designs)} designs, {options.epochs} epochs, one seed; {metric} on search rows"
    yield "rate    decay  mean  best  " + "  ".join(f"{p.name[:13]:>13}" for p in bench.parts)
    for rate in options.rates:
        for decay in options.decays:
            changed = replace(
                bench.recipe, epochs=options.epochs, learning_rate=rate, weight_decay=decay
            )
            began = time.perf_counter()
            found = bench.values(list(designs.values()), 1, changed)
            means = [statistics.mean(parts) for parts in found]
            parts = [statistics.mean(part) for part in zip(*found, strict=True)]
            top = max(means) if up else min(means)
            yield (
                f"{rate:<7g} {decay:<5g}  {statistics.mean(means):.3f} {top:.3f}  "
                + "  ".join(f"{part:13.3f}" for part in parts)
                + f"   {time.perf_counter() - began:.0f} s"
            )
            best = sorted(zip(means, designs, strict=True), reverse=up)
            yield "    " + ", ".join(f"{name} {mean:.3f}" for mean, name in best)


def noise(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    bench = Bench(options.tasks[0], options.profile, folder)
    changed = replace(bench.recipe, epochs=options.epochs)
    strings = bench.random(options.strings)
    runs = [
        [statistics.mean(parts) for parts in bench.values(strings, seed, changed)]
        for seed in range(1, options.seeds + 1)
    ]
    within = statistics.mean(statistics.stdev(one) for one in zip(*runs, strict=True))
    between = statistics.stdev(statistics.mean(one) for one in zip(*runs, strict=True))
    pairs = [
        kendalltau(runs[i], runs[j]).statistic
        for i in range(len(runs))
        for j in range(i + 1, len(runs))
    ]
    yield f"{options.strings} random strings, {options.seeds} seeds, {options.epochs} epochs"
    yield f"standard deviation between seeds {within:.4f}, between strings {between:.4f}"
    yield f"Kendall's tau of two seeds' rankings: {statistics.mean(pairs):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "recipe", "noise"))
    parser.add_argument("--profile", default="paper" if DEVICE == "cuda" else "smoke")
    parser.add_argument("--data", type=Path, help="where prepared data are, or will be")
    parser.add_argument("--part", default="selective_copying")
    parser.add_argument("--tasks", nargs="+", default=["compose/mad", "compose/mad-hybrid"])
    parser.add_argument("--compiled", action="store_true", help="torch.compile too: minutes")
    parser.add_argument("--together", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3])
    parser.add_argument("--decays", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strings", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as the judge trains: more are slower on a machine that others use
    with tempfile.TemporaryDirectory() as folder:
        for line in globals()[options.what](options, options.data or Path(folder)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
