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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.base.seeds import derive
from scorers.proxies.blocks import (
    BLOCKS,
    Primitive,
    Weight,
    constant,
    gain,
    matrix,
    normal,
    normalise,
    positions,
    project,
    spread,
)
from scorers.proxies.blocks import Recipe as Recipe
from scorers.proxies.protocol import Measured
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


@dataclass(frozen=True, slots=True)
class Group:
    """The candidates with one primitive in a layer. ``members`` is None if that is all of them."""

    primitive: Primitive
    members: Tensor | None
    weights: dict[str, Tensor]


class Population:
    """The models of E candidates: every weight is one tensor with E rows, or its group's.

    Blocks compute in ``short`` (bfloat16 on a GPU). Weights, norms, residual and logits are of
    ``dtype``.
    """

    def __init__(
        self,
        architectures: Sequence[Sequence[str]],
        seeds: Sequence[int],
        vocabulary: int,
        from_last: bool,
        recipe: Recipe,
        *,
        device: str,
        dtype: torch.dtype,
        short: torch.dtype,
    ) -> None:
        self.from_last, self.recipe, self.short = from_last, recipe, short
        self.decayed: list[Tensor] = []
        self.spared: list[Tensor] = []

        def start(
            weights: Mapping[str, Weight], seeds: Sequence[int], *where: object
        ) -> dict[str, Tensor]:
            made = {}
            for name, weight in weights.items():
                drawn = {seed: draw(weight, seed, *where, name) for seed in set(seeds)}
                made[name] = torch.stack([drawn[seed] for seed in seeds]).to(device, dtype)
                made[name].requires_grad_()
                (self.decayed if weight.decays else self.spared).append(made[name])
            return made

        self.ends = start(_ends(vocabulary, recipe.dim, from_last), seeds, "ends")
        self.offsets = torch.arange(len(seeds), device=device)[:, None, None] * vocabulary
        self.layers: list[list[Group]] = []
        for layer in range(len(architectures[0])):
            groups = []
            for name, primitive in BLOCKS.items():
                members = [i for i, string in enumerate(architectures) if string[layer] == name]
                if members:
                    weights = {"norm": gain(recipe.dim), **primitive.weights(recipe)}
                    made = start(weights, [seeds[i] for i in members], layer, name)
                    some = len(members) < len(seeds)
                    index = torch.tensor(members, device=device) if some else None
                    groups.append(Group(primitive, index, made))
            self.layers.append(groups)

    def logits(self, tokens: Tensor) -> Tensor:
        """Return (E, batch, length, vocabulary) for ids (E, batch, length), or (1, ...) for all."""
        ends = self.ends
        x = F.embedding(tokens + self.offsets, ends["embedding"].flatten(0, 1))
        for groups in self.layers:
            x = self._layer(x, groups)
        if self.from_last:
            cos, sin = positions(x.shape[2], x.shape[3] // 2, x.device, x.dtype)
            x = x[:, :, -1:] + torch.cat((sin, cos), -1)  # arXiv 1706.03762, section 3.5
            for half in HALVES:
                x = normalise(x, ends[f"{half}_norm"]).to(self.short)
                x = F.gelu(project(x, ends[half]) + spread(ends[f"{half}_bias"]))
        x = normalise(x, ends["norm"]).to(self.short)
        return project(x, ends["head"]) + spread(ends["head_bias"])

    def _layer(self, x: Tensor, groups: Sequence[Group]) -> Tensor:
        """Add to x (E, batch, length, dim) what each candidate's block makes of it."""
        added = x
        for group in groups:
            # A view of all of them, so that gradients are summed in the same order as for some.
            inside = x.view_as(x) if group.members is None else x.index_select(0, group.members)
            inside = normalise(inside, group.weights["norm"]).to(self.short)
            out = group.primitive.apply(inside, group.weights, self.recipe).to(x.dtype)
            if group.members is None:
                added = x + out
            elif added is x:
                added = x.index_add(0, group.members, out)
            else:  # nobody else holds it
                added = added.index_add_(0, group.members, out)
        return added


HALVES = ("decoder_1", "decoder_2")
"""The layers of MAD's decoder, which answers from the last state: norm, Linear and GELU, twice.

They start as all other matrices do, where MAD's auto-encoder draws its own from N(0, .02).
"""


def _ends(vocabulary: int, dim: int, from_last: bool) -> dict[str, Weight]:
    """Return one candidate's weights before and after the blocks, by name."""
    ends = {
        "embedding": Weight((vocabulary, dim), normal(0.02), decays=True),
        "norm": gain(dim),
        "head": matrix(dim, vocabulary),
        "head_bias": Weight((vocabulary,), constant(0.0)),
    }
    for half in HALVES if from_last else ():
        ends |= {
            half: matrix(dim, dim),
            f"{half}_bias": Weight((dim,), constant(0.0)),
            f"{half}_norm": gain(dim),
        }
    return ends


def draw(weight: Weight, *where: object) -> Tensor:
    """Return initial values, float32, that depend on ``where`` (seed, layer, names) alone."""
    return weight.draw(weight.shape, torch.Generator().manual_seed(derive(*where)))


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
    return [
        Measured(*counted(answers, task.held_out[1]), loss, points)
        if math.isfinite(loss)
        else Measured(0.0, 0.0, 0.0, math.nan, points)
        for answers, loss, points in zip(predicted, losses, curve, strict=True)
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
    """Train, and return each candidate's curve. Nothing here waits for the device in a step."""
    optimiser = torch.optim.AdamW(
        [
            {"params": population.decayed, "weight_decay": recipe.weight_decay},
            {"params": population.spared, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        fused=True,
    )
    rows = len(task.train[0])
    steps = recipe.steps(rows)
    marks = {round(point * steps / CURVE_POINTS) for point in range(1, CURVE_POINTS + 1)}
    since, last = torch.zeros(len(seeds), device=device), 0
    curve: list[tuple[int, Tensor]] = []
    for step, (epoch, inputs, targets) in enumerate(_batches(task, seeds, recipe, device), 1):
        for group in optimiser.param_groups:
            group["lr"] = rate(epoch, recipe)
        optimiser.zero_grad()
        totals, asked = nats(population.logits(inputs), targets)
        losses = totals / asked.clamp(min=1)
        torch.autograd.backward(losses.sum())
        optimiser.step()
        since = since + losses.detach()
        if step in marks:
            curve.append((step, since / (step - last)))
            since, last = torch.zeros_like(since), step
        report(step, steps)
    return _columns(curve, len(seeds))


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
    each = F.cross_entropy(
        logits.flatten(0, -2),
        targets.expand(logits.shape[:-1]).flatten(),
        ignore_index=IGNORED,
        reduction="none",
    )
    return each.view(len(logits), -1).sum(1), asked


@torch.no_grad()
def _answer(
    population: Population, rows: tuple[Ids, Ids], batch_size: int, device: str
) -> tuple[Ids, list[float]]:
    """Return the answers (E, rows, length), ties to the lowest id, and each candidate's loss."""
    predicted = []
    total: Tensor | float = 0.0
    pieces = (torch.split(ids, batch_size) for ids in _on(device, rows))
    for some, wanted in zip(*pieces, strict=True):
        logits = population.logits(some[None])
        predicted.append(logits.argmax(-1).cpu())
        total = total + nats(logits, wanted[None])[0].double()
    asked = int((rows[1] != IGNORED).sum())
    return torch.cat(predicted, 1).numpy(), (torch.as_tensor(total) / asked).tolist()


def _on(device: str, rows: tuple[Ids, Ids]) -> tuple[Tensor, Tensor]:
    inputs, targets = (torch.from_numpy(ids.astype(np.int64)).to(device) for ids in rows)
    return inputs, targets


def counted(predicted: Ids, targets: Ids) -> tuple[float, float, float]:
    """Return micro accuracy, its standard error, and macro accuracy, for (rows, length) each.

    Rows are the clusters of the error, and the accuracy is a ratio of two sums over rows (Cochran,
    Sampling Techniques, 1977, section 6.4). At least one target must be asked.
    """
    asked = targets != IGNORED
    right = (predicted == targets) & asked
    each, of = right.sum(1), asked.sum(1)
    accuracy = float(each.sum() / of.sum())
    squares = float(((each - accuracy * of) ** 2).sum())
    rows = len(targets)
    error = math.sqrt(squares * rows / (rows - 1)) / float(of.sum()) if rows > 1 else math.nan
    seen = np.bincount(targets[asked])
    recalls = np.bincount(targets[right], minlength=len(seen))[seen > 0] / seen[seen > 0]
    return accuracy, error, float(recalls.mean())
