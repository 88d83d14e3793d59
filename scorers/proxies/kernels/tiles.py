"""What kernels share: how a head's rows are read, and powers of e."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
"""A GPU takes powers of two: e to the x is 2 to the x * LOG2_E."""

Tile = dict[str, int]
"""Sizes of a kernel's tiles, in tokens and columns, its warps, and its stages of loading."""


@triton.jit
def power(x):
    """Return e to the x."""
    return tl.exp2(x * LOG2_E)


@triton.jit
def head(base, row, length, stride, SIZE: tl.constexpr, WIDE: tl.constexpr):
    """Load a head's rows (rows, WIDE); columns from SIZE on are 0."""
    c = tl.arange(0, WIDE)[None, :]
    real = (row[:, None] < length) & (c < SIZE)
    return tl.load(base + row[:, None] * stride + c, mask=real, other=0.0)


def wide(size: int) -> int:
    """Return a head's columns in a tile: a matrix unit multiplies 16 at least."""
    return max(16, size)
