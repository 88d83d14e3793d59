"""The blocks of AIRA-Compose's small-scale strings, each for many candidates at once.

Attention (A), multi-layer perceptron (M) and Mamba-2 (Mb) with the sizes of arXiv 2605.15871,
appendix D.2: at width 128 they have 65,536, 66,048 and 64,774 weights, so the length of a string
sets its size. A weight is one tensor (candidates, ...), and a block maps activations
(candidates, batch, length, dim) to the same shape. Candidates never meet in a computation, so one
whose numbers overflow leaves the others as they are.

Matrices start uniform in ±1/sqrt(inputs), the default of torch's Linear, which MAD's language model
keeps (athms/mad-lab, commit 0f49a45).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

BASE = 10_000.0
EPSILON = 1e-5
"""Added to the mean square in every RMSNorm."""

Shape = tuple[int, ...]
Mix = Callable[[Tensor, Mapping[str, Tensor], "Recipe"], Tensor]
Draw = Callable[[Shape, torch.Generator], Tensor]
"""Returns a weight's initial values, float32 on the CPU."""


PARTS = {"torch": "scorers.proxies.plain", "triton": "scorers.proxies.fused"}
"""By the name of a recipe's kernels: a module with ``embed``, ``layer`` and ``read``."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Sizes of the proxies, and how they are trained.

    ``expansion``, ``state``, ``head_dim`` and ``convolution`` (kernel, tokens) are Mamba-2's. The
    learning rate falls by a cosine, epoch by epoch, from ``learning_rate`` to ``final_rate``.
    ``kernels`` names who computes: "torch", or our own "triton" (``scorers.proxies.kernels``), for
    a GPU only; the two differ in rounding. Raises ValueError if heads do not divide what they
    share, a head of attention is odd, or the kernels are unknown or do not fit the sizes.
    """

    dim: int
    heads: int
    mlp_dim: int
    state: int
    expansion: float
    head_dim: int
    convolution: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    final_rate: float = 1e-6
    kernels: str = "torch"

    def __post_init__(self) -> None:
        if self.dim % (2 * self.heads):
            raise ValueError(f"{self.heads} heads do not divide width {self.dim} into even sizes")
        if self.kernels not in PARTS:
            raise ValueError(f"kernels {self.kernels!r} are none of {', '.join(PARTS)}")
        sizes = (self.dim, self.dim // self.heads, self.head_dim, self.state)
        if self.kernels == "triton" and (
            any(size & (size - 1) for size in sizes) or not 16 <= self.dim <= 256
        ):
            raise ValueError(f"triton kernels need powers of two, and width 16 to 256: {sizes}")
        if self.inner != self.dim * self.expansion or self.inner % self.head_dim:
            raise ValueError(
                f"{self.expansion} x width {self.dim} is no multiple of head size {self.head_dim}"
            )

    @property
    def inner(self) -> int:
        """Width inside of Mamba-2."""
        return round(self.dim * self.expansion)

    def steps(self, rows: int) -> int:
        """Return how many steps training on so many rows takes."""
        return self.epochs * math.ceil(rows / self.batch_size)


@dataclass(frozen=True, slots=True)
class Weight:
    """Shape of one candidate's weight, its initial values, and whether weight decay applies."""

    shape: Shape
    draw: Draw
    decays: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Primitive:
    """A kind of block: its weights by name, and what happens between its two matrices.

    ``first`` and ``second`` name the matrices. ``mix`` maps what the first makes of activations,
    (candidates, batch, length, its width), to what the second takes.
    """

    weights: Callable[[Recipe], dict[str, Weight]]
    first: str
    mix: Mix
    second: str

    def apply(self, x: Tensor, weights: Mapping[str, Tensor], recipe: Recipe) -> Tensor:
        """Map activations (candidates, batch, length, dim) to the same shape and type.

        They may have a shorter type than the weights.
        """
        mixed = self.mix(project(x, weights[self.first]), weights, recipe)
        return project(mixed.to(x.dtype), weights[self.second])


def constant(value: float) -> Draw:
    """Return a draw of one value for all."""
    return lambda shape, _generator: torch.full(shape, value)


def normal(deviation: float) -> Draw:
    """Return a draw from a normal distribution with mean 0."""
    return lambda shape, generator: torch.randn(shape, generator=generator) * deviation


def uniform(low: float, high: float) -> Draw:
    """Return a draw from [low, high)."""
    return lambda shape, generator: torch.rand(shape, generator=generator) * (high - low) + low


def matrix(inputs: int, outputs: int) -> Weight:
    """Return a matrix (inputs, outputs), uniform in ±1/sqrt(inputs)."""
    bound = inputs**-0.5
    return Weight((inputs, outputs), uniform(-bound, bound), decays=True)


def gain(width: int) -> Weight:
    """Return the gain of an RMSNorm, which starts at 1."""
    return Weight((width,), constant(1.0))


def project(x: Tensor, weights: Tensor) -> Tensor:
    """Multiply each candidate's activations (E, batch, length, in) by its matrix (E, in, out)."""
    return torch.bmm(x.flatten(1, 2), weights.to(x.dtype)).view(*x.shape[:3], -1)


def spread(x: Tensor) -> Tensor:
    """Shape a vector for each candidate (E, width) for activations (E, batch, length, width)."""
    return x[:, None, None]


def normalise(x: Tensor, gains: Tensor) -> Tensor:
    """Return the RMSNorm over the last axis, in the type of ``gains`` (E, width)."""
    return F.rms_norm(x.to(gains.dtype), x.shape[-1:], eps=EPSILON) * spread(gains)


def _attention_weights(recipe: Recipe) -> dict[str, Weight]:
    return {"qkv": matrix(recipe.dim, 3 * recipe.dim), "out": matrix(recipe.dim, recipe.dim)}


def _attend(qkv: Tensor, _weights: Mapping[str, Tensor], recipe: Recipe) -> Tensor:
    candidates, batch, length, _ = qkv.shape
    split = qkv.view(candidates * batch, length, 3, recipe.heads, -1)
    heads = split.permute(2, 0, 3, 1, 4)  # (3, candidates * batch, heads, length, size)
    query, key = rotate(heads[:2])
    mixed = F.scaled_dot_product_attention(query, key, heads[2], is_causal=True)
    return mixed.transpose(1, 2).reshape(candidates, batch, length, recipe.dim)


def rotate(x: Tensor) -> Tensor:
    """Turn each head (..., length, size) by its position (Su et al., arXiv 2104.09864).

    Dimension i of the first half and of the second half are a pair. A product of two turned vectors
    depends on the distance of their positions alone.
    """
    precise = torch.promote_types(x.dtype, torch.float32)
    cos, sin = positions(x.shape[-2], x.shape[-1] // 2, x.device, precise)
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), -1).to(x.dtype)


@lru_cache(maxsize=64)
def positions(
    length: int, pairs: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (length, pairs) of a position times 10,000^(-pair/pairs)."""
    rates = BASE ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return angles.cos().to(device, dtype), angles.sin().to(device, dtype)


def _mlp_weights(recipe: Recipe) -> dict[str, Weight]:
    return {"up": matrix(recipe.dim, recipe.mlp_dim), "down": matrix(recipe.mlp_dim, recipe.dim)}


def _rectify(x: Tensor, _weights: Mapping[str, Tensor], _recipe: Recipe) -> Tensor:
    return x.relu()


def _mamba_weights(recipe: Recipe) -> dict[str, Weight]:
    """Return the weights of Mamba-2, with the initial values of state-spaces/mamba."""
    inner, heads = recipe.inner, recipe.inner // recipe.head_dim
    mixed = inner + 2 * recipe.state
    bound = recipe.convolution**-0.5
    return {
        "in": matrix(recipe.dim, inner + mixed + heads),
        "kernel": Weight((recipe.convolution, mixed), uniform(-bound, bound), decays=True),
        "kernel_bias": Weight((mixed,), uniform(-bound, bound)),
        "dt_bias": Weight((heads,), _step_bias),
        "A_log": Weight((heads,), lambda *where: uniform(1, 16)(*where).log()),
        "D": Weight((heads,), constant(1.0)),
        "gain": gain(inner),
        "out": matrix(inner, recipe.dim),
    }


def _step_bias(shape: Shape, generator: torch.Generator) -> Tensor:
    """Draw what softplus maps to steps that are log-uniform in [.001, .1]."""
    steps = uniform(math.log(0.001), math.log(0.1))(shape, generator).exp()
    return steps + (-(-steps).expm1()).log()


def _scan(x: Tensor, weights: Mapping[str, Tensor], recipe: Recipe) -> Tensor:
    """Apply Mamba-2 (Dao and Gu, arXiv 2405.21060) with one group for B and C, but its matrices."""
    inner, state = recipe.inner, recipe.state
    heads = inner // recipe.head_dim
    gate, mixed, dt = torch.split(x, [inner, inner + 2 * state, heads], -1)
    mixed = F.silu(_convolve(mixed, weights["kernel"], weights["kernel_bias"]))
    # Decays multiply over the whole length, so steps keep the precision of the weights.
    steps = F.softplus(dt + spread(weights["dt_bias"]))
    decays = steps * -spread(weights["A_log"].exp())
    values, b, c = torch.split(mixed, [inner, state, state], -1)
    values = values.reshape(*steps.shape, recipe.head_dim)
    y = dual(values, b, c, steps, decays) + values * spread(weights["D"])[..., None]
    # The gate comes before the norm.
    return normalise(y.flatten(-2) * F.silu(gate), weights["gain"])


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Convolve each channel of x (E, batch, length, C) causally with a kernel (E, taps, C)."""
    taps, length = kernel.shape[1], x.shape[2]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    total = spread(bias.to(x.dtype))
    for tap in range(taps):  # the last tap is the present token
        total = total + padded[:, :, tap : tap + length] * spread(kernel[:, tap].to(x.dtype))
    return total


def dual(values: Tensor, b: Tensor, c: Tensor, steps: Tensor, decays: Tensor) -> Tensor:
    """Return Mamba-2's recurrence as masked attention, quadratic in the length.

    h_t = exp(decay_t) h_(t-1) + step_t b_t v_t' and y_t = c_t h_t, with values v (E, batch, length,
    heads, P), b and c (E, batch, length, state), steps and decays (E, batch, length, heads). The
    result has the shape and type of ``values``. Source: arXiv 2405.21060, section 3.
    """
    sums = decays.cumsum(2).transpose(2, 3)
    gaps = sums[..., :, None] + (-sums)[..., None, :]  # (E, batch, heads, to, from)
    # Masked before exp: a gap to the future is positive, and would overflow. In place, because this
    # is the largest tensor of a proxy.
    kept = gaps.add_(_future(gaps.shape[-1], gaps.device, gaps.dtype)).exp_()
    scores = torch.matmul(c, b.transpose(-1, -2))[:, :, None] * kept
    inputs = (values * steps[..., None]).transpose(2, 3)
    return torch.matmul(scores.to(values.dtype), inputs.to(values.dtype)).transpose(2, 3)


@lru_cache(maxsize=64)
def _future(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return -inf where a token (row) would look at a later one (column), else 0."""
    return torch.full((length, length), -torch.inf, dtype=dtype).triu(1).to(device)


BLOCKS = {
    "A": Primitive(_attention_weights, "qkv", _attend, "out"),
    "M": Primitive(_mlp_weights, "up", _rectify, "down"),
    "Mb": Primitive(_mamba_weights, "in", _scan, "out"),
}
"""By the name that a string uses. Their order is the order of computation."""


@dataclass(frozen=True, slots=True)
class Group:
    """The candidates with one primitive in a layer: their numbers (int32), and their weights."""

    primitive: str
    members: Tensor
    everyone: bool
    weights: Mapping[str, Tensor]


def parameters(architecture: Sequence[str], recipe: Recipe) -> int:
    """Return the number of weights in a string's blocks, without the norms before the blocks.

    Raises KeyError for an unknown primitive.
    """
    return sum(
        weight.size for name in architecture for weight in BLOCKS[name].weights(recipe).values()
    )
