"""A stand-in for the ``kernels`` hub package: FlashAttention-3's function, without a download.

``get_kernel(repo).flash_attn_interface.flash_attn_func`` has the signature and window semantics
that the public train.py relies on (karpathy/autoresearch at 228791f). Full layers are SDPA; windows
are flex_attention on a GPU, which skips what no query of a block sees, and SDPA with a dense mask
on a CPU, right and slow. Gradients and ``torch.compile`` work throughout.

Not covered: queries and keys of different lengths, dropout, variable lengths, KV caches, fp8.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.nn.attention.flex_attention import BlockMask

UNLIMITED = -1
_block_masks = SimpleNamespace()
"""Block masks, an attribute each: torch.compile looks attributes up where it needs them."""
_tools = SimpleNamespace()
"""flex: flex_attention, compiled. mask_name: names a block mask, and makes it if need be."""


def get_kernel(repo_id: str, revision: str | None = None, **_: object) -> SimpleNamespace:
    """Return what the hub package returns for a FlashAttention-3 repository, whatever its name."""
    _make_tools()
    return SimpleNamespace(flash_attn_interface=SimpleNamespace(flash_attn_func=flash_attn_func))


def flash_attn_func(
    q: "torch.Tensor",
    k: "torch.Tensor",
    v: "torch.Tensor",
    softmax_scale: float | None = None,
    causal: bool = False,
    *,
    window_size: tuple[int, int] = (UNLIMITED, UNLIMITED),
) -> "torch.Tensor":
    """Return attention (B, T, H, D) of q (B, T, H, D) over k, v (B, T, KV, D), KV dividing H.

    With ``window_size`` (l, r), query i sees key j where i - l <= j <= i + r; -1, or T and more,
    is unlimited. ``causal`` makes r 0. The scale is by default 1 / sqrt(D). If one input is of 16
    bits, or autocast is on, all are computed in that type, and so is the result.

    Raises ValueError for shapes that do not go together.
    """
    import torch
    import torch.nn.functional as F

    length = q.shape[1]
    if k.shape[1] != length or k.shape != v.shape or q.shape[2] % k.shape[2]:
        shapes = f"{tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        raise ValueError(
            f"flash_attn_func takes (B, T, H, D) and twice (B, T, KV, D), not {shapes}"
        )
    dtype = _common_type(q, k, v)
    q, k, v = (x.to(dtype).transpose(1, 2) for x in (q, k, v))
    left, right = (w if 0 <= w < length else UNLIMITED for w in window_size)
    right = 0 if causal else right
    grouped = k.shape[1] != q.shape[1]
    if left == UNLIMITED and right in (UNLIMITED, 0):
        y = F.scaled_dot_product_attention(
            q, k, v, is_causal=right == 0, scale=softmax_scale, enable_gqa=grouped
        )
    elif _on_gpu(q):
        block_mask = getattr(_block_masks, _tools.mask_name(length, left, right, str(q.device)))
        y = _tools.flex(q, k, v, block_mask=block_mask, scale=softmax_scale, enable_gqa=grouped)
    else:
        place = torch.arange(length, device=q.device)
        mask = _visible(place[:, None], place[None, :], left, right)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, scale=softmax_scale, enable_gqa=grouped
        )
    return y.transpose(1, 2)


def _on_gpu(x: "torch.Tensor") -> bool:
    return x.is_cuda


def _common_type(q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor") -> "torch.dtype":
    """Autocast reaches neither flex_attention nor mixed inputs, so it is done by hand."""
    import torch

    for x in (q, k, v):
        if x.dtype in (torch.bfloat16, torch.float16):
            return x.dtype
    kind = q.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else q.dtype


def _visible(query: Any, key: Any, left: int, right: int) -> Any:  # noqa: ANN401  # ints or tensors
    """Return whether the key stands inside the query's window; one of the bounds is a limit."""
    if left == UNLIMITED:
        return key <= query + right
    if right == UNLIMITED:
        return key >= query - left
    return (key >= query - left) & (key <= query + right)


def _make_tools() -> None:
    """Make what torch.compile must find ready when it traces flash_attn_func."""
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    def mask_name(length: int, left: int, right: int, device: str) -> str:
        name = f"{length}_{left}_{right}_{device}"
        if not hasattr(_block_masks, name):
            setattr(_block_masks, name, _make_block_mask(length, left, right, device))
        return name

    # Called while tracing, not traced: a block mask made inside the graph would be made again at
    # every step.
    _tools.mask_name = torch.compiler.assume_constant_result(mask_name)  # type: ignore[no-untyped-call]
    # Compiled outside of a compiled model, too: else it makes the whole (T, T) matrix of scores.
    _tools.flex = torch.compile(flex_attention, dynamic=False)


def _make_block_mask(length: int, left: int, right: int, device: str) -> "BlockMask":
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    def mask(_b: Any, _h: Any, query: Any, key: Any) -> Any:  # noqa: ANN401
        return _visible(query, key, left, right)

    with torch.inference_mode(False):  # it may serve in training later
        return create_block_mask(mask, None, None, length, length, device=device)
