"""One pass over float16 logits on a GPU: a private copy, its log-normalisers, and a wiped source.

Each value is loaded once from the source; what is stored in the copy and what is summed come from
that one load, so nothing that the owner of the source does meanwhile can tell them apart. It
moves 6 bytes a logit, where separate steps of torch move about 30.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scorers.reading import LARGEST

if TYPE_CHECKING:
    import torch

Normalise = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor"], None]
"""From a source to its copy, the log-normalisers and what is bad, in place."""

tl: Any = None
"""triton.language, from when ``fused`` is first called: Triton looks its names up here."""

BLOCK = 8192
"""Logits a program holds at a time: the public vocabulary in one piece, 32 a thread."""


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

    Raises ImportError without Triton; what Triton raises when it cannot compile comes with the
    first call.
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
