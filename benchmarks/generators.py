"""Measures how fast our generators make ListOps and Pathfinder data, against plain generators.

    python benchmarks/generators.py [--seconds 5]

Uses one process and one core. ListOps has the published lengths (500 to 2,000 tokens); its floor is
a recursive generator in plain Python that gives up a tree as soon as it is too long. Pathfinder's
floor is the same layout code, run for one image at a time. Rates count kept samples, by the wall
clock and by CPU time; on a machine that other people use, read the CPU time.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.lra.listops import data as listops
from tasks.lra.pathfinder import snakes
from tasks.lra.pathfinder.data import STYLES
from tasks.spec import find_task
from tasks.stream import RandomStream


class TooLong(Exception):
    """The tree can no longer stay below the length limit."""


def plain_listops(p: listops.ListopsParameters, seed: int = 1) -> Iterator[int]:
    """Yield 1 for each kept expression, made one at a time as in the published code."""
    rng = random.Random(seed)
    tokens: list[str] = []

    def grow(depth: int) -> int:
        if len(tokens) >= p.max_length:
            raise TooLong
        if depth == p.max_depth or rng.random() > listops.OPERATOR_SHARE:
            digit = rng.randrange(10)
            tokens.append(str(digit))
            return digit
        at = len(tokens)
        tokens.append("")
        values = sorted(grow(depth + 1) for _ in range(rng.randint(2, p.max_args)))
        tokens.append("X")
        tokens[at] = rng.choice(("[MIN", "[MAX", "[MED", "[SM"))
        match tokens[at]:
            case "[MIN":
                return values[0]
            case "[MAX":
                return values[-1]
            case "[MED":
                return (values[(len(values) - 1) // 2] + values[len(values) // 2]) // 2
        return sum(values) % 10

    while True:
        tokens.clear()
        try:
            grow(1)
        except TooLong:
            continue
        if p.min_length < len(tokens) < p.max_length:
            yield 1


def our_listops(p: listops.ListopsParameters) -> Iterator[int]:
    for _, labels in listops.expressions(p, p.seed):
        yield len(labels)


def plain_pathfinder(style: snakes.ImageStyle) -> Iterator[int]:
    """Yield 1 for each image whose layout found room, laid out and drawn one at a time."""
    stream = RandomStream(1)
    while True:
        ground = snakes.OccupancyGrid(1, style)
        bodies = np.full((1, 2 + style.distractors, style.paddles, 4), np.nan)
        rows = np.arange(1)
        for number in range(2 + style.distractors):
            rows = snakes._place(stream, ground, bodies, number, rows)
            if not len(rows):
                break
        else:
            markers = bodies[:, :2, 0, :2]
            snakes.draw(style, snakes.Layouts(bodies, markers, np.ones(1, np.uint8)))
            yield 1


def our_pathfinder(style: snakes.ImageStyle) -> Iterator[int]:
    for _, labels in snakes.images(style, 1):
        yield len(labels)


def rate(made: Iterator[int], seconds: float) -> tuple[float, float]:
    """Return samples per second of wall clock and of CPU time, without the first batch."""
    next(made)
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < seconds:
        count += next(made)
    return count / (time.perf_counter() - wall), count / (time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of the measurements")
    arguments = parser.parse_args()
    paper = find_task("lra/listops").profile("paper").data
    p = listops.ListopsParameters.model_validate(dict(paper))
    small, large = STYLES["hard32"], STYLES["hard128"]
    cases = {
        "ListOps, 500 to 2,000 tokens": (our_listops(p), plain_listops(p), 5000),
        "Pathfinder, 32 px, hard": (our_pathfinder(small), plain_pathfinder(small), 500),
        "Path-X, 128 px, hard": (our_pathfinder(large), plain_pathfinder(large), None),
    }
    print("| data | ours, samples/s (CPU time) | plain (CPU time) | ratio | goal |")
    print("|---|---|---|---|---|", flush=True)
    for name, (ours, plain, goal) in cases.items():
        wall, cpu = rate(ours, arguments.seconds)
        plain_wall, plain_cpu = rate(plain, arguments.seconds)
        print(
            f"| {name} | {wall:,.0f} ({cpu:,.0f}) | {plain_wall:,.0f} ({plain_cpu:,.0f}) "
            f"| {cpu / plain_cpu:.0f} | {goal or '–'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
