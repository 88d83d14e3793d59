"""Measures the trainer of proxies: how fast many are trained together, and what its settings are.

    python benchmarks/compose.py speed [--profile paper] [--together 1 8 32 64] [--steps 12]
    python benchmarks/compose.py recipe [--epochs 40] [--rates 5e-4 1e-3 2e-3] [--decays 0 0.1]
    python benchmarks/compose.py noise [--epochs 40] [--seeds 5]

``speed``: random strings of compose/mad-hybrid and compose/mad on in-context recall, trained
together and one after the other, in the same run; TFLOP/s count products of matrices, and the
causal half of attention. ``recipe``: the reference designs of compose/mad under each pair of
learning rate and weight decay, on search rows: MAD (arXiv 2403.17844) chooses by its test rows.
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

import torch
from scipy.stats import kendalltau

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scorers.proxies.blocks import Recipe, parameters
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

    def accuracies(self, strings: Sequence[Sequence[str]], seed: int, recipe: Recipe) -> list:
        """Return the accuracy of each string on each part, on search rows."""
        each = [
            train(part, strings, [seed] * len(strings), recipe, device=DEVICE, report=nothing)
            for part in self.parts
        ]
        return [[one.accuracy for one in column] for column in zip(*each, strict=True)]


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


def speed(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    for name in ("compose/mad", "compose/mad-hybrid"):
        bench = Bench(name, options.profile, folder)
        part = next(p for p in bench.parts if p.name == options.part)
        yield f"{name}, {options.profile}, {part.name}, {bench.layers} layers, on {DEVICE}"
        yield "together  ms a step  ms a string  TFLOP/s  GiB  times one at a time"
        alone = seconds_a_step(part, bench.random(1), bench.recipe, options.steps)
        for count in options.together:
            strings = bench.random(count)
            if DEVICE == "cuda":
                torch.cuda.reset_peak_memory_stats()
            spent = seconds_a_step(part, strings, bench.recipe, options.steps)
            peak = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else 0.0
            rate = flop_a_step(part, strings, bench.recipe) / spent / 1e12
            yield (
                f"{count:8d}  {1e3 * spent:9.1f}  {1e3 * spent / count:11.2f}  {rate:7.1f}"
                f"  {peak:3.0f}  {alone * count / spent:19.1f}"
            )


def recipe(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    bench = Bench("compose/mad", options.profile, folder)
    designs = bench.designs()
    yield f"{len(designs)} designs, {options.epochs} epochs, one seed; accuracy on search rows"
    yield "rate    decay  mean  best  " + "  ".join(f"{p.name[:13]:>13}" for p in bench.parts)
    for rate in options.rates:
        for decay in options.decays:
            changed = replace(
                bench.recipe, epochs=options.epochs, learning_rate=rate, weight_decay=decay
            )
            began = time.perf_counter()
            found = bench.accuracies(list(designs.values()), 1, changed)
            means = [statistics.mean(parts) for parts in found]
            parts = [statistics.mean(part) for part in zip(*found, strict=True)]
            yield (
                f"{rate:<7g} {decay:<5g}  {statistics.mean(means):.3f} {max(means):.3f}  "
                + "  ".join(f"{part:13.3f}" for part in parts)
                + f"   {time.perf_counter() - began:.0f} s"
            )
            best = sorted(zip(means, designs, strict=True), reverse=True)
            yield "    " + ", ".join(f"{name} {mean:.3f}" for mean, name in best)


def noise(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    bench = Bench("compose/mad", options.profile, folder)
    changed = replace(bench.recipe, epochs=options.epochs)
    strings = bench.random(options.strings)
    runs = [
        [statistics.mean(parts) for parts in bench.accuracies(strings, seed, changed)]
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
    parser.add_argument("--part", default="selective_copying")
    parser.add_argument("--together", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3])
    parser.add_argument("--decays", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strings", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in globals()[options.what](options, Path(folder)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
