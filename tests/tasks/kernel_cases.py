"""Holds the designs' Triton kernels against the float64 references; prints a JSON line a case.

    TRITON_INTERPRET=1 python tests/tasks/kernel_cases.py cpu     (Triton's interpreter)
    python tests/tasks/kernel_cases.py cuda [DESIGN …]

A process of its own, because Triton reads that variable when it is first imported.
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
    """``kernel`` and ``exact`` take ``inputs``, the leaves; what else they need is bound."""

    name: str
    design: str
    dtype: torch.dtype
    inputs: list[Tensor]
    kernel: Mechanism
    exact: Mechanism


def widest(dtype: torch.dtype) -> int:
    """Return the widest head that the designs give to their kernels."""
    return 256 // dtype.itemsize


# Of few widths, for on a GPU every width is compiled anew: minutes, in all.
def window_cases(dtype: torch.dtype, device: str) -> Iterator[Case]:
    """A row shorter than a block, blocks and a rest, padding, windows of nothing to everything."""
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
            # As from one projection: views of one tensor, the head between row and time.
            q, k, v = torch.stack((q, k, v)).transpose(2, 3).contiguous().transpose(2, 3)
            return module.Fused.apply(q, k, v, lengths, window)

        def exact(
            q: Tensor, k: Tensor, v: Tensor, mask: Tensor = mask, window: int = window
        ) -> Tensor:
            return reference.window_attention(q, k, v, mask, window)

        name = f"T={length} D={width} window={window} reals={reals}"
        yield Case(name, "sliding_window", dtype, draws(shape, shape, shape), kernel, exact)


def linear_cases(dtype: torch.dtype, device: str) -> Iterator[Case]:
    """One token, tiles and a rest, an empty row, more tokens than one program sums."""
    module = load("linear_attention")
    shapes = [((1,), 1, 16), ((5, 0), 5, 16), ((130, 65), 130, 20), ((600,), 600, 16)]
    if device == "cuda":
        # No lone token among them: its gradient is 0, and rounding is all that is left.
        shapes += [((3000, 513, 100), 3000, 64), ((513,), 513, widest(dtype))]
    for reals, length, width in shapes:
        mask = right_padded(*reals, length=length)
        shape = (len(reals), 2, length, width)

        def kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor = mask) -> Tensor:
            lengths = mask.sum(dim=1, dtype=torch.int32).to(device)
            # As from one projection: views of one tensor, the head between row and time.
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
    """One token, one chunk, chunks and a rest, a rest of one; hardly and wholly forgetting."""
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
            # Without a copy in between: the last step changes the strides.
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

    The reference gets the inputs as the kernel's precision has rounded them.
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
    """Return the relative error; where all is 0, as a lone token's decay, the absolute one."""
    assert got is not None
    assert want is not None
    got, want = got.detach().double().cpu(), want.detach()
    size = float(want.norm())
    return float((got - want).norm()) / (size if size > 1e-9 else 1.0)


def main(device: str, *designs: str) -> None:
    """Print {"case", "design", "dtype", "errors"} for every case."""
    torch.set_num_threads(1)  # tiny tensors wait for each other otherwise
    # The interpreter has no bfloat16, for numpy has none.
    half = torch.float16 if device == "cpu" else torch.bfloat16
    makers = (window_cases, linear_cases, recurrence_cases)
    for make, dtype in product(makers, (torch.float32, half)):
        cases = [c for c in make(dtype, device) if not designs or c.design in designs]
        # What differs between types shows at any shape, and the interpreter is slow.
        for case in cases[-1:] if dtype == torch.float16 else cases:
            row = {"case": case.name, "design": case.design, "dtype": str(dtype)[6:]}
            print(json.dumps({**row, "errors": errors(case, device)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
