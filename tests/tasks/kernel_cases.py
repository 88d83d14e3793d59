"""Compares the designs' Triton kernels with float64 references; prints one JSON line per case.

    TRITON_INTERPRET=1 python tests/tasks/kernel_cases.py cpu     (Triton's interpreter)
    python tests/tasks/kernel_cases.py cuda [DESIGN …]

It is a separate program because Triton reads that variable when it is first imported. The limits
on the errors are in test_designs_kernels.py.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mechanism_references as reference
import torch
from mechanisms import draws, right_padded
from torch import Tensor

from tasks.lra.gallery import load

Mechanism = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Case:
    """``kernel`` and ``exact`` take ``inputs``, the leaf tensors; all else is already bound."""

    name: str
    design: str
    dtype: torch.dtype
    inputs: list[Tensor]
    kernel: Mechanism
    exact: Mechanism


def widest(dtype: torch.dtype) -> int:
    """Return the largest width (features) of a head for which the designs use their kernels."""
    return 256 // dtype.itemsize


# The cases use few widths, because a GPU compiles for every width anew: minutes, in all.
def window_cases(dtype: torch.dtype, device: str) -> Iterator[Case]:
    """Rows shorter than a block, several blocks and a rest, padding, windows from 0 to all."""
    module = load("sliding_window")
    shapes = [
        ((1,), 1, 16, 1), ((5, 0), 5, 16, 2), ((70, 64, 13), 70, 20, 9), ((64,), 64, 20, 64),
        ((130, 65), 130, 16, 33), ((150,), 150, 16, 0), ((129, 1), 129, 20, 200),
    ]  # fmt: skip
    if device == "cuda":
        shapes += [((1000, 700, 3), 1000, 64, 128), ((513,), 513, widest(dtype), 128)]
    for reals, length, width, window in shapes:
        mask = right_padded(*reals, length=length)
        shape = (len(reals), 2, length, width)

        def kernel(
            q: Tensor, k: Tensor, v: Tensor, mask: Tensor = mask, window: int = window
        ) -> Tensor:
            lengths = mask.sum(dim=1, dtype=torch.int32).to(device)
            # Views of one tensor, as after a joint projection: (B, H, T, D), stored as B, T, H, D.
            q, k, v = torch.stack((q, k, v)).transpose(2, 3).contiguous().transpose(2, 3)
            return module.Fused.apply(q, k, v, lengths, window)

        def exact(
            q: Tensor, k: Tensor, v: Tensor, mask: Tensor = mask, window: int = window
        ) -> Tensor:
            return reference.window_attention(q, k, v, mask, window)

        name = f"T={length} D={width} window={window} reals={reals}"
        yield Case(name, "sliding_window", dtype, draws(shape, shape, shape), kernel, exact)


def linear_cases(dtype: torch.dtype, device: str) -> Iterator[Case]:
    """One token, several tiles and a rest, an empty row, more tokens than one program sums."""
    module = load("linear_attention")
    shapes = [((1,), 1, 16), ((5, 0), 5, 16), ((130, 65), 130, 20), ((600,), 600, 16)]
    if device == "cuda":
        # No row of one token here: its q and k have gradient 0, so only rounding would show.
        shapes += [((3000, 513, 100), 3000, 64), ((513,), 513, widest(dtype))]
    for reals, length, width in shapes:
        mask = right_padded(*reals, length=length)
        shape = (len(reals), 2, length, width)

        def kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor = mask) -> Tensor:
            lengths = mask.sum(dim=1, dtype=torch.int32).to(device)
            # Views of one tensor, as after a joint projection: (B, H, T, D), stored as B, T, H, D.
            q, k, v = torch.stack((q, k, v)).transpose(2, 3).contiguous().transpose(2, 3)
            return module.Fused.apply(q, k, v, lengths)

        def exact(q: Tensor, k: Tensor, v: Tensor, mask: Tensor = mask) -> Tensor:
            # An empty row has no average; the kernel gives 0.
            full = mask | ~mask.any(1, keepdim=True)
            y = reference.linear_attention(q, k, v, full)
            return y * mask.any(1)[:, None, None, None]

        name = f"T={length} D={width} reals={reals}"
        yield Case(name, "linear_attention", dtype, draws(shape, shape, shape), kernel, exact)


def recurrence_cases(dtype: torch.dtype, device: str) -> Iterator[Case]:
    """One token, one chunk, chunks and a rest, a rest of one; from weak to complete decay."""
    module = load("gated_recurrence")
    shapes = [(1, 16, 1.0), (20, 20, 1.0), (64, 16, 0.01), (129, 20, 0.05), (150, 16, 30.0)]
    if device == "cuda":
        shapes += [(1000, 64, 0.05), (513, widest(dtype), 1.0)]
    for length, width, strength in shapes:
        shape = (2, length, 2, width)

        def kernel(
            q: Tensor, k: Tensor, v: Tensor, raw: Tensor, strength: float = strength
        ) -> Tensor:
            q, k, v = torch.stack((q, k, v), 2).unbind(2)
            # No copy of q, k and v: the kernel must accept the strides that unbind gives them.
            decay = -strength * torch.nn.functional.softplus(raw.float())
            return module.Fused.apply(q, k, v, decay)

        def exact(
            q: Tensor, k: Tensor, v: Tensor, raw: Tensor, strength: float = strength
        ) -> Tensor:
            decay = -strength * torch.nn.functional.softplus(raw)
            return reference.gated_recurrence(q, k, v, decay)

        inputs = draws(shape, shape, shape, (2, length, 2, 2))
        yield Case(
            f"T={length} D={width} strength={strength}",
            "gated_recurrence", dtype, inputs, kernel, exact,
        )  # fmt: skip


def errors(case: Case, device: str) -> list[float]:
    """Return |got - want| / |want| (2-norms) of the value and of each input's gradient.

    The reference gets the inputs after they are rounded to the kernel's precision.
    """
    rounded = [x.detach().to(case.dtype) for x in case.inputs]
    ours = [x.to(device, copy=True).requires_grad_() for x in rounded]
    theirs = [x.double().requires_grad_() for x in rounded]
    got, want = case.kernel(*ours), case.exact(*theirs)
    probe = torch.randn(want.shape, generator=torch.Generator().manual_seed(1), dtype=case.dtype)
    got.backward(probe.to(device))
    want.backward(probe.double())
    pairs = [(got, want)] + [(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True)]
    return [error(a, b) for a, b in pairs]


def error(got: Tensor | None, want: Tensor | None) -> float:
    """Return the relative error, or the absolute one if ``want`` is 0 (a lone token's decay)."""
    assert got is not None
    assert want is not None
    got, want = got.detach().double().cpu(), want.detach()
    size = float(want.norm())
    return float((got - want).norm()) / (size if size > 1e-9 else 1.0)


def main(device: str, *designs: str) -> None:
    """Print a JSON object for every case, with the keys case, design, dtype and errors."""
    torch.set_num_threads(1)  # on tiny tensors, more threads mostly wait for each other
    # The interpreter has no bfloat16, because numpy has none.
    half = torch.float16 if device == "cpu" else torch.bfloat16
    makers = (window_cases, linear_cases, recurrence_cases)
    for make, dtype in product(makers, (torch.float32, half)):
        cases = [c for c in make(dtype, device) if not designs or c.design in designs]
        # One case for float16: differences between types show at any shape, and this is slow.
        for case in cases[-1:] if dtype == torch.float16 else cases:
            row = {"case": case.name, "design": case.design, "dtype": str(dtype)[6:]}
            print(json.dumps({**row, "errors": errors(case, device)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
