"""Trains many strings of blocks at once from scratch, and measures each on withheld rows.

In each layer the candidates with the same primitive are computed together, one batched product for
each weight. The loss is the sum of the candidates' own mean losses and AdamW works element by
element, so every candidate is trained as if it were alone. Candidates of equal seed see the same
rows in the same order, and start from the same weights wherever a layer holds the same primitive:
comparing them is less noisy.

The model and its optimiser follow MAD (athms/mad-lab, commit 0f49a45): pre-norm residual blocks, an
untied head, AdamW with betas .9 and .999, a cosine by epoch without warm-up, no dropout. Unlike
MAD, weight decay spares gains, biases and Mamba-2's A, D and step biases, and training never stops
early: that would choose by the withheld rows.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from scorers.proxies.blocks import BLOCKS, Recipe
from scorers.proxies.population import Population
from scorers.proxies.protocol import Measured
from scorers.proxies.recorded import Recorded
from tasks.kinds import IGNORED
from tasks.stream import RandomStream

Ids = NDArray[Any]
"""Token ids of any integer type."""

CURVE_POINTS = 20


@dataclass(frozen=True, slots=True)
class TokenTask:
    """One token task: inputs and targets (rows, length) to learn from, and withheld ones.

    Ids lie under ``vocabulary``; a target of -100 is not asked. With ``from_last`` every position
    is answered from the state at the last one, as in MAD's compression.
    """

    name: str
    vocabulary: int
    from_last: bool
    train: tuple[Ids, Ids]
    held_out: tuple[Ids, Ids]


def order(seed: int, epoch: int, rows: int) -> NDArray[np.int64]:
    """Return the order in which a candidate sees its rows in an epoch (from 0)."""
    return RandomStream(seed, epoch).order(rows)


def rate(epoch: int, recipe: Recipe) -> float:
    """Return the learning rate of an epoch (from 0): a cosine that nears ``final_rate``."""
    falling = (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2
    return recipe.final_rate + (recipe.learning_rate - recipe.final_rate) * falling


def train(
    task: TokenTask,
    architectures: Sequence[Sequence[str]],
    seeds: Sequence[int],
    recipe: Recipe,
    *,
    device: str,
    report: Callable[[int, int], None],
    dtype: torch.dtype | None = None,
) -> list[Measured]:
    """Train one model for each string and its seed; return what each got right on withheld rows.

    A step takes ``batch_size`` rows of a candidate, or what is left of the epoch. ``report`` is
    called after each with the steps done and all steps; what it raises ends the training. All is
    computed in ``dtype`` if given; else weights are float32, and blocks bfloat16 on a GPU.

    A candidate that diverges hurts no other. Raises ValueError if there is no string, strings
    differ in length, there are more or fewer seeds than strings, or withheld rows ask nothing, and
    KeyError for an unknown primitive.
    """
    _check(task, architectures, seeds)
    short = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    population = Population(
        architectures,
        seeds,
        task.vocabulary,
        task.from_last,
        recipe,
        device=device,
        dtype=dtype or torch.float32,
        short=dtype or short,
    )
    curve = _fit(population, task, seeds, recipe, device, report)
    predicted, losses = _answer(population, task.held_out, recipe.batch_size, device)
    targets = task.held_out[1]
    asked = (targets != IGNORED).sum(1)
    return [
        Measured(*counted(answers, targets), *ratio(by_row, asked), points)
        if np.isfinite(by_row).all()
        else Measured(0.0, 0.0, 0.0, math.nan, math.nan, points)
        for answers, by_row, points in zip(predicted, losses, curve, strict=True)
    ]


def _check(task: TokenTask, architectures: Sequence[Sequence[str]], seeds: Sequence[int]) -> None:
    if len({len(string) for string in architectures}) != 1:
        raise ValueError("strings must have one length")
    if len(seeds) != len(architectures):
        raise ValueError(f"{len(architectures)} strings, but {len(seeds)} seeds")
    for name in {name for string in architectures for name in string}:
        BLOCKS[name]
    if not (task.held_out[1] != IGNORED).any():
        raise ValueError(f"the withheld rows of {task.name} ask nothing")


def _fit(
    population: Population,
    task: TokenTask,
    seeds: Sequence[int],
    recipe: Recipe,
    device: str,
    report: Callable[[int, int], None],
) -> list[tuple[tuple[int, float], ...]]:
    """Train, and return each candidate's curve."""
    on_gpu = torch.device(device).type == "cuda"
    # A recorded step reads its learning rate from the GPU.
    first = torch.tensor(recipe.learning_rate, device=device) if on_gpu else recipe.learning_rate
    optimiser = torch.optim.AdamW(
        [
            {"params": population.decayed, "weight_decay": recipe.weight_decay},
            {"params": population.spared, "weight_decay": 0.0},
        ],
        lr=first,
        fused=True,
        capturable=on_gpu,
    )

    def learn(inputs: Tensor, targets: Tensor) -> Tensor:
        """Make one step; return each candidate's mean loss before it."""
        totals, asked = nats(population.logits(inputs), targets)
        losses = totals / asked.clamp(min=1)
        torch.autograd.backward(losses.sum())
        optimiser.step()
        optimiser.zero_grad()
        return losses.detach()

    once = Recorded(learn) if on_gpu else learn
    rows = len(task.train[0])
    steps = recipe.steps(rows)
    marks = {round(point * steps / CURVE_POINTS) for point in range(1, CURVE_POINTS + 1)}
    since, last = torch.zeros(len(seeds), device=device), 0
    curve: list[tuple[int, Tensor]] = []
    for step, (epoch, inputs, targets) in enumerate(_batches(task, seeds, recipe, device), 1):
        for group in optimiser.param_groups:
            if on_gpu:
                group["lr"].fill_(rate(epoch, recipe))
            else:
                group["lr"] = rate(epoch, recipe)
        since = since + once(inputs, targets)
        if step in marks:
            curve.append((step, since / (step - last)))
            since, last = torch.zeros_like(since), step
        if on_gpu and step % AHEAD == 0:
            torch.cuda.synchronize()
        report(step, steps)
    return _columns(curve, len(seeds))


AHEAD = 16
"""Steps that may wait for a GPU: more would make progress, and a stop, untrue."""


def _columns(
    curve: Sequence[tuple[int, Tensor]], candidates: int
) -> list[tuple[tuple[int, float], ...]]:
    """Return a curve for each candidate, up to its last finite point."""
    columns = []
    values = [(step, losses.tolist()) for step, losses in curve]
    for candidate in range(candidates):
        points = []
        for step, losses in values:
            if not math.isfinite(losses[candidate]):
                break
            points.append((step, losses[candidate]))
        columns.append(tuple(points))
    return columns


def _batches(
    task: TokenTask, seeds: Sequence[int], recipe: Recipe, device: str
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield epoch, inputs and targets (E, batch, length); (1, ...) if all seeds are equal."""
    inputs, targets = _on(device, task.train)
    different = seeds if len(set(seeds)) > 1 else seeds[:1]
    for epoch in range(recipe.epochs):
        orders = {seed: order(seed, epoch, len(inputs)) for seed in set(different)}
        rows = torch.from_numpy(np.stack([orders[seed] for seed in different])).to(device)
        for chosen in torch.split(rows, recipe.batch_size, dim=1):
            yield epoch, inputs[chosen], targets[chosen]


def nats(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return each candidate's summed cross-entropy (E,), and the number of asked targets.

    For logits (E, batch, length, vocabulary) and targets (E, batch, length) or (1, ...).
    """
    asked = (targets != IGNORED).flatten(1).sum(1)
    return _nats_by_token(logits, targets).flatten(1).sum(1), asked


def _nats_by_token(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each target (E, batch, length), 0 where it is not asked."""
    each = F.cross_entropy(
        logits.flatten(0, -2),
        targets.expand(logits.shape[:-1]).flatten(),
        ignore_index=IGNORED,
        reduction="none",
    )
    return each.view(logits.shape[:-1])


@torch.no_grad()
def _answer(
    population: Population, rows: tuple[Ids, Ids], batch_size: int, device: str
) -> tuple[Ids, NDArray[np.float64]]:
    """Return the answers (E, rows, length), ties to the lowest id, and the nats (E, rows)."""
    predicted, losses = [], []
    pieces = (torch.split(ids, batch_size) for ids in _on(device, rows))
    for some, wanted in zip(*pieces, strict=True):
        logits = population.logits(some[None])
        predicted.append(logits.argmax(-1).cpu())
        losses.append(_nats_by_token(logits, wanted[None]).double().sum(-1).cpu())
    return torch.cat(predicted, 1).numpy(), torch.cat(losses, 1).numpy()


def _on(device: str, rows: tuple[Ids, Ids]) -> tuple[Tensor, Tensor]:
    inputs, targets = (torch.from_numpy(ids.astype(np.int64)).to(device) for ids in rows)
    return inputs, targets


def counted(predicted: Ids, targets: Ids) -> tuple[float, float, float]:
    """Return micro accuracy, its standard error, and macro accuracy, for (rows, length) each.

    At least one target must be asked.
    """
    asked = targets != IGNORED
    right = (predicted == targets) & asked
    accuracy, error = ratio(right.sum(1), asked.sum(1))
    seen = np.bincount(targets[asked])
    recalls = np.bincount(targets[right], minlength=len(seen))[seen > 0] / seen[seen > 0]
    return accuracy, error, float(recalls.mean())


def ratio(sums: NDArray[Any], of: NDArray[np.int64]) -> tuple[float, float]:
    """Return the mean an asked target and its standard error, of sums (rows,) and targets (rows,).

    Rows are the clusters of the error, because tokens of a row are alike; the mean is a ratio of
    two sums over rows (Cochran, Sampling Techniques, 1977, section 6.4). NaN for a single row.
    """
    mean = float(sums.sum() / of.sum())
    squares = float(((sums - mean * of) ** 2).sum())
    rows = len(sums)
    error = math.sqrt(squares * rows / (rows - 1)) / float(of.sum()) if rows > 1 else math.nan
    return mean, error
