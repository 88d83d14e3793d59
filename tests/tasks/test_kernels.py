"""Compares the FlashAttention-3 stand-in with plain float64 attention: values and gradients."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.spec import find_task

KERNELS = find_task("autoresearch").folder / "runtime" / "kernels.py"
Window = tuple[int, int]
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # torch's own


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
    torch.compiler.reset()


@pytest.fixture(scope="session")
def kernels() -> Any:
    """Load kernels.py once per process: torch.compile knows it by its name, and ignores a copy.

    Once per test module is not enough: a worker may run part of a test module, then tests of
    others, then more of the first.
    """
    spec = importlib.util.spec_from_file_location("kernels_tested", KERNELS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def attend(kernels: Any) -> Any:
    return kernels.get_kernel("varunneal/flash-attention-3").flash_attn_interface.flash_attn_func


def reference(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, window: Window, scale: float | None
) -> Tensor:
    """Return attention, one position at a time, from the definition of the window."""
    length, heads, size = q.shape[1:]
    scale = size**-0.5 if scale is None else scale
    left, right = window[0], 0 if causal else window[1]
    out = torch.zeros_like(q)
    for head in range(heads):
        group = head // (heads // k.shape[2])
        for i in range(length):
            first = 0 if left < 0 else max(0, i - left)
            last = length if right < 0 else min(length, i + right + 1)
            scores = (k[:, first:last, group] @ q[:, i, head, :, None])[..., 0] * scale
            weight = scores.softmax(-1)
            out[:, i, head] = (weight[:, None] @ v[:, first:last, group])[:, 0]
    return out


def inputs(length: int, heads: int, groups: int, size: int = 8) -> list[Tensor]:
    torch.manual_seed(length + heads)
    shapes = [(2, length, heads, size), (2, length, groups, size), (2, length, groups, size)]
    return [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]


CASES = [
    (True, (-1, -1), None),
    (True, (33, 0), None),  # the public train.py's full layer: the left window is the length
    (True, (7, 0), None),
    (True, (0, 0), 0.5),
    (True, (5, 9), None),  # causal: the right side of the window has no effect
    (False, (-1, -1), 0.3),
    (False, (4, 2), None),
    (False, (-1, 3), None),
    (False, (6, -1), None),
    (False, (40, 40), None),
]


def agree(attend: Any, length: int, heads: int, groups: int, case: Any) -> None:
    causal, window, scale = case
    ours = inputs(length, heads, groups)
    theirs = inputs(length, heads, groups)
    got = attend(*ours, softmax_scale=scale, causal=causal, window_size=window)
    want = reference(*theirs, causal, window, scale)
    assert got.shape == want.shape
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    probe = torch.randn_like(want)
    (got * probe).sum().backward()
    (want * probe).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_definition(attend: Any, case: Any) -> None:
    agree(attend, 33, 2, 2, case)


@pytest.mark.parametrize("groups", [1, 2])
def test_fewer_key_heads_are_shared_by_neighbouring_query_heads(attend: Any, groups: int) -> None:
    agree(attend, 19, 4, groups, (True, (5, 0), None))
    agree(attend, 19, 4, groups, (True, (-1, -1), None))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_gives_the_same_without_a_graph_break(attend: Any, backend: str) -> None:
    def three_layers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y = attend(q, k, v, causal=True, window_size=(6, 0))
        y = attend(y, k, v, causal=True, window_size=(3, 0))
        return attend(y, k, v, causal=True, window_size=(64, 0))

    compiled = torch.compile(three_layers, dynamic=False, fullgraph=True, backend=backend)
    ours, theirs = inputs(21, 2, 1), inputs(21, 2, 1)
    got, want = compiled(*ours), three_layers(*theirs)
    torch.testing.assert_close(got, want)
    got.sum().backward()
    want.sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_sixteen_bits_in_are_sixteen_bits_out(attend: Any) -> None:
    q, k, v = (x.detach().float() for x in inputs(16, 2, 2))
    assert attend(q, k, v, causal=True).dtype == torch.float32
    assert attend(q, k, v.bfloat16(), causal=True, window_size=(4, 0)).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert attend(q, k, v, causal=True, window_size=(4, 0)).dtype == torch.bfloat16


def test_shapes_that_do_not_go_together_are_named(attend: Any) -> None:
    q, k, v = inputs(16, 3, 2)
    with pytest.raises(ValueError, match=r"\(2, 16, 3, 8\)"):
        attend(q, k, v, causal=True)
    with pytest.raises(ValueError, match="flash_attn_func takes"):
        attend(q[:, :8], k, v, causal=True)


class TestBlockMasks:
    """The code path for GPUs without its backward pass, which flex_attention lacks on a CPU."""

    @pytest.mark.parametrize(
        ("length", "left", "right"), [(300, 100, 0), (256, 128, 0), (130, 1, 5)]
    )
    def test_the_mask_holds_exactly_the_window(
        self, kernels: Any, length: int, left: int, right: int
    ) -> None:
        blocks = kernels._make_block_mask(length, left, right, "cpu")
        place = torch.arange(length)
        seen = blocks.mask_mod(0, 0, place[:, None], place[None, :])
        apart = place[None, :] - place[:, None]
        assert torch.equal(seen, (apart >= -left) & (apart <= right))
        needed = torch.nn.functional.pad(seen, (0, -length % 128, 0, -length % 128))
        needed = needed.unflatten(0, (-1, 128)).unflatten(2, (-1, 128)).any(3).any(1)
        assert torch.equal(blocks.to_dense()[0, 0].bool(), needed)

    def test_the_flex_path_gives_what_the_dense_one_gives_and_makes_each_mask_once(
        self, kernels: Any, attend: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[int] = []
        make = kernels._make_block_mask

        def counted(length: int, left: int, right: int, device: str) -> Any:
            made.append(left)
            return make(length, left, right, device)

        def layers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            y = attend(q, k, v, causal=True, window_size=(50, 0))
            y = attend(y, k, v, causal=True, window_size=(20, 0))
            return attend(y, k, v, causal=True, window_size=(50, 0))

        q, k, v = (x.detach().float() for x in inputs(300, 4, 2, size=16))
        want = layers(q, k, v)
        monkeypatch.setattr(kernels, "_make_block_mask", counted)
        monkeypatch.setattr(kernels, "_on_gpu", lambda _: True)
        compiled = torch.compile(layers, dynamic=False, fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            torch.testing.assert_close(compiled(q, k, v), want)
            compiled(q, k, v)
        assert made == [50, 20]
