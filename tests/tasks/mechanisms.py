"""Helpers for the tests of the gallery: tiny models, random inputs, a comparison of results."""

from typing import Any

import torch
from torch import Tensor

from tasks.lra.gallery import load


def encoder(name: str, *, seed: int = 0, **changes: Any) -> torch.nn.Module:
    """Return a tiny model of the design ``name``; the same seed gives the same weights."""
    sizes = {"vocabulary": 20, "classes": 5, "length": 50, "dim": 16, "depth": 2, "heads": 2,
             "mlp_dim": 24, "dropout": 0.0}  # fmt: skip
    torch.manual_seed(seed)
    model: torch.nn.Module = load(name).CustomEncoder(**{**sizes, **changes})
    return model


def draws(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    """Return random float64 leaf tensors, one per shape, that require gradients."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]


def right_padded(*reals: int, length: int) -> Tensor:
    """Return the mask (B, length); row i begins with ``reals[i]`` real tokens, then padding."""
    return torch.arange(length) < torch.tensor(reals)[:, None]


def assert_same(got: Any, want: Any, leaves: list[Tensor], *, atol: float = 1e-10) -> None:
    """Compare values, and the gradients of a random weighted sum of them.

    The largest error allowed is ``atol`` (gradients: 10 ``atol``) times the larger of 1 and the
    largest entry wanted.
    """

    def close(a: Tensor, b: Tensor, atol: float) -> None:
        size = b.detach().abs().max().clamp(min=1)
        torch.testing.assert_close(a / size, b / size, rtol=0, atol=atol)

    close(got, want, atol)
    probe = torch.randn(want.shape, generator=torch.Generator().manual_seed(1), dtype=want.dtype)
    options = {"retain_graph": True, "materialize_grads": True}
    ours = torch.autograd.grad((got * probe).sum(), leaves, **options)
    theirs = torch.autograd.grad((want * probe).sum(), leaves, **options)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b, 10 * atol)
