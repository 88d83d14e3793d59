"""Times the designs' Triton kernels against the plain torch forms of the same mechanisms.

    python benchmarks/kernels.py [--lengths 512,1024,4096,16384] [--tokens 32768] [--limit 80]

Each case is one call of the mechanism and its backward pass, under bfloat16 autocast as in
training. ``ms`` is the median time of a normal call by CUDA events, with the cache cleared between
calls, after a warm-up, so that neither compilation nor the choice of tiles counts. ``GPU ms`` is
the same call replayed from a CUDA graph: the time that the device alone needs, because it finishes
a small batch sooner than the host can launch it. ``peak`` is the most memory held at once beyond
the inputs. The number of tokens is the same at every length. Also measured: torch.compile of the
plain form; for the window, FlexAttention with the same mask, and torch's fused attention over the
whole row, which computes another function, in T^2. ``error`` is the kernel's largest relative error
(2-norm) of value and gradients to the plain form in float32 without autocast.

Kernels and plain forms go first. A case that has not begun after --limit seconds is left out and
marked so. If a case fails, its error is printed, and the other cases go on.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.lra.gallery import load

TOKENS, HEADS, WIDTH = 32_768, 8, 64
"""About a batch of lra/listops at the paper profile: 16 rows of 2,000 tokens, 512 wide."""
KERNEL, PLAIN, COMPILED = "kernel", "plain", "compiled"
FULL, FLEX = WINDOWS_OWN = "full attention", "flex"

Call = Callable[..., Tensor]


@dataclass(slots=True)
class Result:
    """One case: milliseconds of both passes, MB beyond the inputs, error; or else ``failure``.

    ``gpu_ms`` is None where the call could not be recorded as a CUDA graph.
    """

    mechanism: str
    form: str
    length: int
    batch: int
    ms: float | None = None
    gpu_ms: float | None = None
    peak_mb: float | None = None
    error: float | None = None
    failure: str = ""


def window_forms(module: ModuleType, batch: int, length: int) -> dict[str, Call]:
    """Return name → a way to compute window attention; FULL computes another function."""
    mask = torch.ones(batch, length, dtype=torch.bool, device="cuda")
    window = module.WINDOW

    def flex() -> Call:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        def near(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return (i - j).abs() <= window

        blocks = create_block_mask(near, None, None, length, length, device="cuda")
        compiled = torch.compile(flex_attention)
        return lambda q, k, v: compiled(q, k, v, block_mask=blocks)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return module.blocked(q, k, v, mask, window)

    return {
        KERNEL: lambda q, k, v: module.window_attention(q, k, v, mask, window),
        PLAIN: plain,
        FLEX: delayed(flex),
        COMPILED: delayed(lambda: torch.compile(plain, dynamic=False)),
        FULL: torch.nn.functional.scaled_dot_product_attention,
    }


def linear_forms(module: ModuleType, batch: int, length: int) -> dict[str, Call]:
    mask = torch.ones(batch, length, dtype=torch.bool, device="cuda")

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return module.plain(q, k, v, mask)

    return {
        KERNEL: lambda q, k, v: module.linear_attention(q, k, v, mask),
        PLAIN: plain,
        COMPILED: delayed(lambda: torch.compile(plain, dynamic=False)),
    }


def recurrence_forms(module: ModuleType, batch: int, length: int) -> dict[str, Call]:
    return {
        KERNEL: module.gated_recurrence,
        PLAIN: module.chunked,
        COMPILED: delayed(lambda: torch.compile(module.chunked, dynamic=False)),
    }


def delayed(make: Callable[[], Call]) -> Call:
    """Return a call that runs ``make`` only when first called, since some take seconds to make."""
    made: list[Call] = []

    def call(*inputs: Tensor) -> Tensor:
        if not made:
            made.append(make())
        return made[0](*inputs)

    return call


def attention_inputs(batch: int, length: int) -> list[Tensor]:
    """q, k and v (B, H, T, D), as views of one projection."""
    qkv = torch.randn(batch, length, 3, HEADS, WIDTH, device="cuda")
    return [x.detach() for x in qkv.to(torch.bfloat16).permute(2, 0, 3, 1, 4)]


def recurrence_inputs(batch: int, length: int) -> list[Tensor]:
    """q, k and v (B, T, H, D) as a projection gives them, and log decays (B, T, 2, H)."""
    qkv = torch.randn(batch, length, 3, HEADS, WIDTH, device="cuda").to(torch.bfloat16) / 8
    rate = torch.exp(-torch.linspace(math.log(8), math.log(length), HEADS, device="cuda"))
    decay = -rate * torch.rand(batch, length, 2, HEADS, device="cuda")
    return [*(x.detach() for x in qkv.unbind(2)), decay]


def train(call: Call, inputs: list[Tensor], probe: Tensor) -> None:
    """One forward and backward pass."""
    for x in inputs:
        x.grad = None
    with torch.autocast("cuda", torch.bfloat16):
        y = call(*inputs)
    y.backward(probe.to(y.dtype))


def measure(call: Call, inputs: list[Tensor], probe: Tensor) -> tuple[float, float]:
    """Return milliseconds (median) and MB (peak beyond what was allocated before)."""
    import triton

    run = partial(train, call, inputs, probe)
    for _ in range(3):
        run()
    ms = triton.testing.do_bench(run, warmup=10, rep=60, return_mode="median")
    for x in inputs:
        x.grad = None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return float(ms), (torch.cuda.max_memory_allocated() - before) / 1e6


def on_the_device(call: Call, inputs: list[Tensor], probe: Tensor) -> float | None:
    """Return the device's own milliseconds (median of graph replays), None without a graph."""
    import triton

    for x in inputs:
        x.grad = None
    try:
        run = partial(train, call, inputs, probe)
        return float(triton.testing.do_bench_cudagraph(run, rep=40, return_mode="median"))
    except RuntimeError as error:  # a call that synchronises cannot be recorded
        print(f"no graph: {str(error)[:120]}", file=sys.stderr, flush=True)
        torch.cuda.synchronize()
        return None


def values(call: Call, inputs: list[Tensor], probe: Tensor) -> list[Tensor]:
    """Return the outputs and gradients for the first row alone, in float32."""
    own = [x[:1].detach().clone().requires_grad_() for x in inputs]
    y = call(*own)
    y.backward(probe[:1].to(y.dtype))
    return [y.detach().float()] + [x.grad.float() for x in own if x.grad is not None]


def largest_error(call: Call, plain: Call, inputs: list[Tensor], probe: Tensor) -> float:
    """Return the largest error of ``call`` under bfloat16 autocast, to ``plain`` in float32."""
    with torch.autocast("cuda", torch.bfloat16):
        got = values(call, inputs, probe)
    want = values(plain, [x.float() for x in inputs], probe)
    return max(float((a - b).norm() / b.norm()) for a, b in zip(got, want, strict=True))


MAKERS = {
    "sliding_window": (window_forms, attention_inputs),
    "gated_recurrence": (recurrence_forms, recurrence_inputs),
    "linear_attention": (linear_forms, attention_inputs),
}
"""Mechanism → what makes its forms, and their inputs."""


def cases(lengths: list[int], tokens: int) -> Iterator[Result]:
    """Yield an empty result for each case, the most important cases first."""
    # 4,096 first: our promises are about that length, so it must not be left out.
    ranked = sorted(lengths, key=lambda length: abs(math.log(length / 4096)))
    for forms in ((KERNEL, PLAIN), (FULL, COMPILED), (FLEX,)):
        for length in ranked:
            for name in MAKERS:
                for form in forms:
                    if form not in WINDOWS_OWN or name == "sliding_window":
                        yield Result(name, form, length, max(1, tokens // length))


def fill(result: Result) -> None:
    """Measure a case; a kernel is also compared with the plain form, one row at a time."""
    make, draw = MAKERS[result.mechanism]
    module = load(result.mechanism)
    torch.manual_seed(0)
    inputs = draw(result.batch, result.length)
    probe = torch.randn_like(inputs[0])
    if result.form == KERNEL:
        one = make(module, 1, result.length)
        result.error = largest_error(one[KERNEL], one[PLAIN], inputs, probe)
    inputs = [x.requires_grad_() for x in inputs]
    call = make(module, result.batch, result.length)[result.form]
    result.ms, result.peak_mb = measure(call, inputs, probe)
    result.gpu_ms = on_the_device(call, inputs, probe)


def table(results: list[Result]) -> str:
    """Return one line per case, with its ratios to the plain form at the same length."""
    plain = {(r.mechanism, r.length): r for r in results if r.form == PLAIN}
    lines = [f"{'mechanism':17}{'form':16}{'length':>7}{'ms':>9}{'x plain':>9}{'GPU ms':>9}"
             f"{'x plain':>9}{'peak MB':>9}{'x plain':>9}{'error':>9}"]  # fmt: skip
    for r in sorted(results, key=lambda r: (r.mechanism, r.length)):
        line = f"{r.mechanism:17}{r.form:16}{r.length:>7}"
        if r.ms is None or r.peak_mb is None:
            lines.append(f"{line}  {r.failure}")
            continue
        base = plain.get((r.mechanism, r.length), Result(r.mechanism, PLAIN, r.length, r.batch))
        line += f"{r.ms:>9.3f}{ratio(base.ms, r.ms):>9}"
        line += f"{r.gpu_ms or float('nan'):>9.3f}{ratio(base.gpu_ms, r.gpu_ms):>9}"
        line += f"{r.peak_mb:>9.0f}{ratio(r.peak_mb, base.peak_mb):>9}"
        lines.append(line + (f"{r.error:>9.1e}" if r.error is not None else ""))
    return "\n".join(lines)


def ratio(over: float | None, under: float | None) -> str:
    return f"{over / under:.2f}" if over and under else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lengths", default="512,1024,4096,16384")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of a call (default: 32768)")
    parser.add_argument("--limit", type=float, default=80, metavar="SECONDS")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("needs a CUDA device")
    began, results = time.monotonic(), []
    for result in cases([int(x) for x in arguments.lengths.split(",")], arguments.tokens):
        if time.monotonic() - began > arguments.limit:
            result.failure = "left out: time is up"
        else:
            try:
                fill(result)
            except Exception as error:  # noqa: BLE001  # the other cases go on
                result.failure = f"{type(error).__name__}: {str(error).strip()[:200]}"
            torch.cuda.empty_cache()
        results.append(result)
        print(f"{time.monotonic() - began:5.0f} s  {table([result]).splitlines()[1]}", flush=True)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bfloat16, "
          f"{arguments.tokens:,} tokens, {HEADS} heads of {WIDTH}")  # fmt: skip
    print(table(results))


if __name__ == "__main__":
    main()
