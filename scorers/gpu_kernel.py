"""One pass over float16 logits on a GPU (Triton): copy, log-normalisers, and zeroing of the source.

Each value is loaded once from the source. The copy and the sums both use that one load, so they
agree even if the owner of the source changes it meanwhile. The kernel moves 6 bytes per logit,
where separate torch operations move about 30. ``scorers.gpu_worker.eager`` does the same in torch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scorers.reading import LARGEST

if TYPE_CHECKING:
    import torch

Normalise = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor"], None]
"""Called with source, copy, log-normalisers and counts of bad logits; works in place."""

tl: Any = None
"""triton.language, set by ``fused``: Triton looks up the kernel's names in this module."""

BLOCK = 8192
"""Logits that a program holds at a time: the public vocabulary in one piece, 32 per thread."""


def _rows(source, copy, normaliser, bad, V: "tl.constexpr", LIMIT: "tl.constexpr", SIZE: "tl.constexpr"):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, E501  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    peak = float("-inf")
    total = 0.0
    wrong = 0.0
    for begin in range(0, V, SIZE):
        at = begin + tl.arange(0, SIZE)
        inside = at < V
        held = tl.load(source + row * V + at, mask=inside, other=0.0)
        tl.store(copy + row * V + at, held, mask=inside)
        tl.store(source + row * V + at, tl.zeros_like(held), mask=inside)
        x = held.to(tl.float32)
        wrong += tl.sum(tl.where(tl.abs(x) <= LIMIT, 0.0, 1.0))
        x = tl.where(inside, x, float("-inf"))
        higher = tl.maximum(peak, tl.max(x))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(x - higher))
        peak = higher
    tl.store(normaliser + row, peak + tl.log(total))
    tl.store(bad + row, wrong)


def fused() -> "Normalise":
    """Return the function that ``scorers.gpu_worker.eager`` describes, as one Triton kernel.

    Raises ImportError without Triton. Triton compiles at the first call of the returned function,
    so errors of the compilation are raised there.
    """
    global tl
    import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
    import triton.language  # type: ignore[import-not-found,import-untyped,unused-ignore]

    tl = triton.language
    kernel = triton.jit(_rows)

    def normalise(
        source: "torch.Tensor",
        copy: "torch.Tensor",
        normaliser: "torch.Tensor",
        bad: "torch.Tensor",
    ) -> None:
        rows, vocabulary = source.shape
        size = min(BLOCK, triton.next_power_of_2(vocabulary))
        kernel[(rows,)](
            source, copy, normaliser, bad, V=vocabulary, LIMIT=LARGEST, SIZE=size, num_warps=8
        )

    return normalise
