"""Reference forms of the designs' mechanisms: token by token or as whole matrices, in float64.

Written to be read beside the papers, not to be fast; shares no code with the designs it checks. A
docstring begins with the shape of the result. "Real" tokens are those that are not padding.
"""

import math
from itertools import product

import torch
from torch import Tensor


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """(B, H, T, D): softmax attention over the real keys, one query at a time."""
    out = torch.zeros_like(q)
    for row in range(q.shape[0]):
        keys, values = k[row][:, mask[row]], v[row][:, mask[row]]
        for i in range(q.shape[2]):
            scores = (keys @ q[row, :, i, :, None])[..., 0] / math.sqrt(q.shape[-1])
            out[row, :, i] = (scores.softmax(-1)[:, None] @ values)[:, 0]
    return out


def window_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, window: int) -> Tensor:
    """(B, H, T, D): a query sees the real keys at most ``window`` away, and its own."""
    out = torch.zeros_like(q)
    for row in range(q.shape[0]):
        for i in range(q.shape[2]):
            seen = [
                j
                for j in range(max(0, i - window), min(q.shape[2], i + window + 1))
                if mask[row, j] or i == j
            ]
            scores = (k[row][:, seen] @ q[row, :, i, :, None])[..., 0] / math.sqrt(q.shape[-1])
            out[row, :, i] = (scores.softmax(-1)[:, None] @ v[row][:, seen])[:, 0]
    return out


def linear_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """(B, H, T, D), by the T x T matrix that the mechanism avoids."""

    def phi(x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, x.clamp(max=0).exp())

    weight = (phi(q) @ phi(k).transpose(-1, -2)) * mask[:, None, None, :]
    return weight / weight.sum(-1, keepdim=True) @ v


def favor_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, directions: Tensor) -> Tensor:
    """(B, H, T, D), by the matrix of estimates of exp(q k), without subtracting a maximum."""

    def phi(x: Tensor) -> Tensor:
        x = x / x.shape[-1] ** 0.25
        return torch.exp(x @ directions.T - (x * x).sum(-1, keepdim=True) / 2)

    weight = torch.einsum("bhim,bhjm->bhij", phi(q), phi(k)) * mask[:, None, None, :]
    return weight / weight.sum(-1, keepdim=True) @ v


def nystrom_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, landmarks: int) -> Tensor:
    """(B, H, T, D): each row without its padding, with an exact pseudo-inverse."""
    out = torch.zeros_like(q)
    scale = 1 / math.sqrt(q.shape[-1])
    for row in range(q.shape[0]):
        real = int(mask[row].sum())
        count = min(landmarks, real)
        groups = [[t for t in range(real) if t * count // real == g] for g in range(count)]
        mean_q = torch.stack([q[row][:, g].mean(1) for g in groups], 1)
        mean_k = torch.stack([k[row][:, g].mean(1) for g in groups], 1)
        keys, values = k[row][:, :real], v[row][:, :real]
        left = (q[row] @ mean_k.mT * scale).softmax(-1)
        middle = (mean_q @ mean_k.mT * scale).softmax(-1)
        right = (mean_q @ keys.mT * scale).softmax(-1)
        out[row] = left @ torch.linalg.pinv(middle) @ right @ values
    return out


def rotary_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, base: float) -> Tensor:
    """(B, H, T, D): pairs of features are complex numbers, rotated by their position."""

    def turn(x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        pairs = torch.complex(x[..., :half], x[..., half:])
        for t in range(x.shape[2]):
            for i in range(half):
                angle = torch.tensor(t / base ** (2 * i / x.shape[-1]), dtype=torch.float64)
                factor = torch.polar(torch.ones((), dtype=torch.float64), angle)
                pairs[:, :, t, i] = pairs[:, :, t, i].clone() * factor
        return torch.cat((pairs.real, pairs.imag), -1)

    return softmax_attention(turn(q), turn(k), v, mask)


def gated_recurrence(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """(B, T, H, D): the sum of a forward and a backward recurrence, one token at a time."""
    batch, length, heads, width = q.shape
    keep = log_decay.exp()
    forwards = torch.zeros(batch, heads, width, width, dtype=q.dtype)
    backwards = torch.zeros_like(forwards)
    ahead, behind = [], []
    for t in range(length):
        written = k[:, t, :, :, None] * v[:, t, :, None, :]
        forwards = keep[:, t, 0, :, None, None] * forwards + written
        ahead.append((q[:, t, :, None] @ forwards)[..., 0, :])
    for t in reversed(range(length)):
        if t + 1 < length:
            written = k[:, t + 1, :, :, None] * v[:, t + 1, :, None, :]
            backwards = keep[:, t, 1, :, None, None] * (backwards + written)
        behind.append((q[:, t, :, None] @ backwards)[..., 0, :])
    return torch.stack(ahead, 1) + torch.stack(behind[::-1], 1)


def state_space(
    u: Tensor, log_dt: Tensor, log_decay: Tensor, frequency: Tensor, weight: Tensor
) -> Tensor:
    """(B, d, T) from u: x_t = exp(dt A) x_{t-1} + (exp(dt A) - 1) / A u_t; y_t = 2 Re w x_t."""
    a = -log_decay.exp() + 1j * frequency
    step = torch.exp(a * log_dt.exp())
    enter = (step - 1) / a
    x = torch.zeros(*u.shape[:2], a.shape[-1], dtype=torch.complex128)
    out = []
    for t in range(u.shape[-1]):
        x = step * x + enter * u[:, :, t, None]
        out.append(2 * (weight * x).sum(-1).real)
    return torch.stack(out, -1)


def moving_average(
    u: Tensor, entry: Tensor, decay: Tensor, damping: Tensor, leave: Tensor
) -> Tensor:
    """(B, d, T) from u: h_t = a entry u_t + (1 - a d) h_{t-1}; y_t = leave h_t."""
    a, d = torch.sigmoid(decay), torch.sigmoid(damping)
    h = torch.zeros(*u.shape[:2], a.shape[-1], dtype=u.dtype)
    out = []
    for t in range(u.shape[-1]):
        h = a * entry * u[:, :, t, None] + (1 - a * d) * h
        out.append((leave * h).sum(-1))
    return torch.stack(out, -1)


def two_sided_convolution(u: Tensor, forwards: Tensor, backwards: Tensor) -> Tensor:
    """(B, d, T), by the double sum that defines it."""
    length = u.shape[-1]
    out = []
    for t in range(length):
        before = sum(forwards[:, t - s] * u[:, :, s] for s in range(t + 1))
        after = sum(
            (backwards[:, s - t - 1] * u[:, :, s] for s in range(t + 1, length)), 0 * u[:, :, 0]
        )
        out.append(before + after)
    return torch.stack(out, -1)


def bracket_parents(tokens: list[int]) -> list[int]:
    """Return the position of the innermost operator open around each token (0 if none is)."""
    stack: list[int] = []
    out = []
    for place, token in enumerate(tokens):
        out.append(stack[-1] if stack else 0)
        if token == 15:
            stack.pop()
        elif token > 10:
            stack.append(place)
    return out


def tree_attention(q: Tensor, k: Tensor, v: Tensor, parent: Tensor, is_child: Tensor) -> Tensor:
    """(B, T, H, D): each node attends to the list of its children; 0 if it has none."""
    rows, length, heads, width = q.shape
    out = []
    for row, node, head in product(range(rows), range(length), range(heads)):
        children = [t for t in range(length) if is_child[row, t] and parent[row, t] == node]
        if not children:
            out.append(0 * v[row, node, head])
            continue
        scores = k[row, children, head] @ q[row, node, head] / width
        if head < (heads + 1) // 2:
            weight = (4 * torch.tanh(scores)).softmax(-1)
        else:
            weight = 1 / (1 + torch.exp(-scores))
        out.append(weight @ v[row, children, head])
    return torch.stack(out).view_as(q)
