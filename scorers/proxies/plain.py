"""The model's parts in torch: the reference for ``fused``, and what computes on a CPU.

Activations are (E, batch, length, D) in the type of the weights; products are made in ``short``.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scorers.proxies.blocks import BLOCKS, Group, Recipe, normalise, project, spread


def embed(tokens: Tensor, embedding: Tensor, short: torch.dtype) -> Tensor:
    """Return the rows of embedding (E, V, D) at ids (E, batch, length), or (1, ...) for all."""
    count, vocabulary, _ = embedding.shape
    offsets = torch.arange(count, device=tokens.device)[:, None, None] * vocabulary
    return F.embedding(tokens + offsets, embedding.flatten(0, 1))


def layer(x: Tensor, groups: Sequence[Group], recipe: Recipe, short: torch.dtype) -> Tensor:
    """Return x plus what each candidate's block makes of it; each is a member of one group."""
    added = x
    for group in groups:
        # A view of all of them, so that gradients are summed in the same order as for some.
        inside = x.view_as(x) if group.everyone else x.index_select(0, group.members)
        inside = normalise(inside, group.weights["norm"]).to(short)
        out = BLOCKS[group.primitive].apply(inside, group.weights, recipe).to(x.dtype)
        if group.everyone:
            added = x + out
        elif added is x:
            added = x.index_add(0, group.members, out)
        else:  # nobody else holds it
            added = added.index_add_(0, group.members, out)
    return added


def read(x: Tensor, gain: Tensor, matrix: Tensor, bias: Tensor, short: torch.dtype) -> Tensor:
    """Return the normed rows of x by a matrix (E, D, N), plus a bias (E, N)."""
    return project(normalise(x, gain).to(short), matrix) + spread(bias)
