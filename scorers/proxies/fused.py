"""The model's parts by our own kernels: what ``plain`` computes, in fewer passes.

Each function does what its namesake there does, for float32 weights, with its own way back. A layer
writes each group's rows of the result where they belong, so that nothing is copied to bring
candidates of one primitive together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scorers.proxies import plain
from scorers.proxies.blocks import BLOCKS, Group, Mix, Recipe, spread
from scorers.proxies.kernels import products
from scorers.proxies.kernels.attention import Attend
from scorers.proxies.kernels.mamba import Mamba


def _attend(qkv: Tensor, _weights: Mapping[str, Tensor], recipe: Recipe) -> Tensor:
    return Attend.apply(qkv, recipe.heads)


def _scan(x: Tensor, weights: Mapping[str, Tensor], recipe: Recipe) -> Tensor:
    names = ("kernel", "kernel_bias", "dt_bias", "A_log", "D", "gain")
    return Mamba.apply(x, *(weights[name] for name in names), recipe.state)


MIXES: dict[str, Mix | None] = {"A": _attend, "M": None, "Mb": _scan}
"""What happens between a block's two matrices; None is a ReLU, which the first one's kernel does.

By the name of the primitive, as ``blocks.BLOCKS``.
"""


@dataclass(slots=True)
class _Kept:
    """What a block keeps for the way back: rows and matrices in the short type."""

    rows: Tensor
    first: Tensor
    second: Tensor
    before: Tensor | None
    """What ``mix`` got, with its gradient's graph to ``after``; None for a ReLU."""
    leaves: dict[str, Tensor]
    after: Tensor
    wide: Tensor
    """``after`` (G, T, .) with zeros to a multiple of 16."""


def _forward(
    group: Group,
    x: Tensor,
    out: Tensor,
    shape: Sequence[int],
    recipe: Recipe,
    short: torch.dtype,
    *,
    learning: bool,
) -> _Kept | None:
    weights, primitive, mix = group.weights, BLOCKS[group.primitive], MIXES[group.primitive]
    first = _padded(weights[primitive.first].detach().to(short), 2)
    second = _padded(weights[primitive.second].detach().to(short), 1)
    made, rows = products.project(
        x, group.members, first, gain=weights["norm"], relu=mix is None, keep=learning
    )
    before, after, leaves = None, made, {}
    if mix is not None:
        matrices = ("norm", primitive.first, primitive.second)
        leaves = {name: w.detach() for name, w in weights.items() if name not in matrices}
        before = made.view(len(made), *shape, -1)
        for leaf in (before, *leaves.values()):
            leaf.requires_grad_(learning)
        with torch.set_grad_enabled(learning):
            after = mix(before, leaves, recipe)
    wide = _padded(after.detach().flatten(1, -2), 2)
    products.add_projected(wide, second, x, group.members, out)
    return _Kept(rows, first, second, before, leaves, after, wide) if learning else None


def _backward(group: Group, kept: _Kept, x: Tensor, above: Tensor, below: Tensor) -> list[Tensor]:
    """Set the block's rows of ``below``; return the gradients of its weights, in their order."""
    weights, primitive = group.weights, BLOCKS[group.primitive]
    mask = kept.wide if kept.before is None else None
    slopes, _ = products.project(above, group.members, kept.second, mask=mask, transposed=True)
    second = products.weight_gradient(kept.wide, above, group.members)
    found = {primitive.second: second[:, : weights[primitive.second].shape[1]]}
    if kept.before is not None:
        slopes = slopes[..., : kept.after.shape[-1]].reshape(kept.after.shape)
        leaves = [kept.before, *kept.leaves.values()]
        through, *rest = torch.autograd.grad(kept.after, leaves, slopes)
        found |= dict(zip(kept.leaves, rest, strict=True))
        slopes = through.flatten(1, 2)
    found["norm"] = products.project_back(
        slopes, kept.first, x, group.members, below, weights["norm"], above
    )
    first = products.weight_gradient(kept.rows, slopes)
    found[primitive.first] = first[..., : weights[primitive.first].shape[2]]
    return [found[name] for name in weights]


def _padded(x: Tensor, axis: int) -> Tensor:
    """Return x (G, ., .) with zeros to a multiple of 16 on an axis, 1 or 2."""
    missing = products.padded(x.shape[axis]) - x.shape[axis]
    if not missing:
        return x.contiguous()
    return F.pad(x, (0, missing) if axis == 2 else (0, 0, 0, missing))


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        groups: Sequence[Group],
        recipe: Recipe,
        short: torch.dtype,
        learning: bool,
        *_: Tensor,
    ) -> Tensor:
        out = torch.empty_like(x)
        rows, flat = x.flatten(1, 2), out.view(len(x), -1, x.shape[3])
        ctx.groups, ctx.rows = groups, rows
        ctx.kept = [
            _forward(group, rows, flat, x.shape[1:3], recipe, short, learning=learning)
            for group in groups
        ]
        return out

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        below = torch.empty_like(ctx.rows)
        flat, found = above.contiguous().flatten(1, 2), []
        for group, kept in zip(ctx.groups, ctx.kept, strict=True):
            found += _backward(group, kept, ctx.rows, flat, below)
        del ctx.kept
        return below.view(above.shape), None, None, None, None, *found


def layer(x: Tensor, groups: Sequence[Group], recipe: Recipe, short: torch.dtype) -> Tensor:
    """Return x plus what each candidate's block makes of it; each is a member of one group."""
    weights = [weight for group in groups for weight in group.weights.values()]
    return _Layer.apply(x, groups, recipe, short, torch.is_grad_enabled(), *weights)


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor,
        matrix: Tensor,
        bias: Tensor,
        short: torch.dtype,
        learning: bool,
    ) -> Tensor:
        members = torch.arange(len(x), device=x.device, dtype=torch.int32)
        rows, weights = x.flatten(1, 2).contiguous(), _padded(matrix.to(short), 2)
        made, kept = products.project(rows, members, weights, gain=gain, keep=learning)
        ctx.save_for_backward(rows, kept, weights, gain, members)
        ctx.width = matrix.shape[2]
        return made.view(*x.shape[:3], -1)[..., : ctx.width] + spread(bias)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        rows, kept, weights, gain, members = ctx.saved_tensors
        flat = above.contiguous().flatten(1, 2)
        slopes, below = _padded(flat.to(kept.dtype), 2), torch.empty_like(rows)
        gained = products.project_back(slopes, weights, rows, members, below, gain, None)
        matrix = products.weight_gradient(kept, slopes)[..., : ctx.width]
        # Not by torch's sum, whose order may depend on how many candidates there are.
        same = torch.zeros(1, rows.shape[1], dtype=torch.int64, device=rows.device)
        biased = products.embedding_gradient(same, flat, 1, kept.dtype)[:, 0]
        return below.view(*above.shape[:3], -1), gained, matrix, biased, None, None


def read(x: Tensor, gain: Tensor, matrix: Tensor, bias: Tensor, short: torch.dtype) -> Tensor:
    """Return the normed rows of x by a matrix (E, D, N), plus a bias (E, N)."""
    return _Read.apply(x, gain, matrix, bias, short, torch.is_grad_enabled())


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, embedding: Tensor, short: torch.dtype) -> Tensor:
        ctx.tokens, ctx.vocabulary, ctx.short = tokens, embedding.shape[1], short
        return plain.embed(tokens, embedding, short)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        rows, ids = above.contiguous().flatten(1, 2), ctx.tokens.flatten(1)
        return None, products.embedding_gradient(ids, rows, ctx.vocabulary, ctx.short), None


def embed(tokens: Tensor, embedding: Tensor, short: torch.dtype) -> Tensor:
    """Return the rows of embedding (E, V, D) at ids (E, batch, length), or (1, ...) for all."""
    return _Embed.apply(tokens, embedding, short)
