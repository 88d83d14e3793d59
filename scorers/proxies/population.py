"""The models of many candidates as one: every weight is one tensor, with a row for each of them."""

from collections.abc import Mapping, Sequence
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.base.seeds import derive
from scorers.proxies.blocks import (
    BLOCKS,
    PARTS,
    Group,
    Recipe,
    Weight,
    constant,
    gain,
    matrix,
    normal,
    positions,
)


class Population:
    """The models of E candidates: every weight is one tensor with E rows, or its group's.

    Blocks compute in ``short`` (bfloat16 on a GPU). Weights, norms, residual and logits are of
    ``dtype``. A recipe's kernels compute the same in fewer passes.
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
        self.parts = import_module(PARTS[recipe.kernels])
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
        self.layers: list[list[Group]] = []
        for layer in range(len(architectures[0])):
            groups = []
            for name, primitive in BLOCKS.items():
                members = [i for i, string in enumerate(architectures) if string[layer] == name]
                if members:
                    weights = {"norm": gain(recipe.dim), **primitive.weights(recipe)}
                    made = start(weights, [seeds[i] for i in members], layer, name)
                    index = torch.tensor(members, device=device, dtype=torch.int32)
                    groups.append(Group(name, index, len(members) == len(seeds), made))
            self.layers.append(groups)

    def logits(self, tokens: Tensor) -> Tensor:
        """Return (E, batch, length, vocabulary) for ids (E, batch, length), or (1, ...) for all."""
        ends, short = self.ends, self.short
        x = self.parts.embed(tokens, ends["embedding"], short)
        for groups in self.layers:
            x = self.parts.layer(x, groups, self.recipe, short)
        if self.from_last:
            cos, sin = positions(x.shape[2], x.shape[3] // 2, x.device, x.dtype)
            x = x[:, :, -1:] + torch.cat((sin, cos), -1)  # arXiv 1706.03762, section 3.5
            for half in HALVES:
                names = (f"{half}_norm", half, f"{half}_bias")
                x = F.gelu(self.parts.read(x, *(ends[name] for name in names), short))
        made: Tensor = self.parts.read(x, ends["norm"], ends["head"], ends["head_bias"], short)
        return made


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
