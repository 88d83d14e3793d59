"""One proxy trained alone, written plainly: what the batched trainer must agree with.

Attention is a softmax under a mask, rotary positions are complex numbers, and Mamba-2 is its
recurrence.
"""

import torch
import torch.nn.functional as F
from torch import nn

from scorers.proxies.trainer import order


def unit(x, gain):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain


def turned(x):
    """Rotate (..., length, size): entry i of the first half and of the second are one number."""
    length, pairs = x.shape[-2], x.shape[-1] // 2
    speed = 10_000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), speed)
    number = torch.complex(x[..., :pairs], x[..., pairs:])
    number = number * torch.polar(torch.ones_like(angle), angle).to(number.dtype)
    return torch.cat((number.real, number.imag), -1)


def attend(x, w, recipe):
    batch, length, dim = x.shape

    def split(part):
        return part.view(batch, length, recipe.heads, -1).transpose(1, 2)

    query, key, value = (split(part) for part in (x @ w["qkv"]).split(dim, -1))
    scores = turned(query) @ turned(key).transpose(-1, -2) / (dim / recipe.heads) ** 0.5
    seen = torch.ones(length, length).tril().bool()
    mixed = scores.where(seen, -torch.inf).softmax(-1) @ value
    return mixed.transpose(1, 2).reshape(batch, length, dim) @ w["out"]


def perceive(x, w, recipe):
    return F.relu(x @ w["up"]) @ w["down"]


def recurrence(values, b, c, steps, decays):
    """Mamba-2, token by token; shapes as in ``scorers.proxies.blocks.dual`` without candidates."""
    memory = torch.zeros(*values.shape[0:1], *values.shape[2:], b.shape[-1], dtype=values.dtype)
    outputs = []
    for t in range(values.shape[1]):
        written = torch.einsum("bh,bhp,bn->bhpn", steps[:, t], values[:, t], b[:, t])
        memory = memory * decays[:, t, :, None, None].exp() + written
        outputs.append(torch.einsum("bhpn,bn->bhp", memory, c[:, t]))
    return torch.stack(outputs, 1)


def scan(x, w, recipe):
    inner = int(recipe.dim * recipe.expansion)
    state, heads = recipe.state, inner // recipe.head_dim
    z, u, dt = (x @ w["in"]).split((inner, inner + 2 * state, heads), -1)
    taps = w["kernel"].shape[0]
    u = F.pad(u.transpose(1, 2), (taps - 1, 0))
    u = F.conv1d(u, w["kernel"].T[:, None], w["kernel_bias"], groups=u.shape[1])
    values, b, c = F.silu(u.transpose(1, 2)).split((inner, state, state), -1)
    values = values.reshape(*values.shape[:2], heads, recipe.head_dim)
    steps = F.softplus(dt + w["dt_bias"])
    y = recurrence(values, b, c, steps, -w["A_log"].exp() * steps)
    y = (y + w["D"][:, None] * values).reshape(*x.shape[:2], inner)
    return unit(y * F.silu(z), w["gain"]) @ w["out"]


BLOCKS = {"A": attend, "M": perceive, "Mb": scan}


class PlainProxy(nn.Module):
    """The model of candidate ``i`` of a population, with copies of its initial weights."""

    def __init__(self, population, i, string, recipe):
        super().__init__()
        self.string, self.recipe, self.from_last = string, recipe, population.from_last
        self.ends = self.copied(population.ends, i)
        self.layers = nn.ModuleList()
        for groups in population.layers:
            for group in groups:
                members = group.members.tolist()
                if i in members:
                    self.layers.append(self.copied(group.weights, members.index(i)))

    @staticmethod
    def copied(weights, i):
        return nn.ParameterDict({name: w[i].detach().clone() for name, w in weights.items()})

    def forward(self, tokens):
        w = self.ends
        x = w["embedding"][tokens]
        for name, layer in zip(self.string, self.layers, strict=True):
            x = x + BLOCKS[name](unit(x, layer["norm"]), layer, self.recipe)
        if self.from_last:
            half = self.recipe.dim // 2
            speed = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
            angle = torch.arange(tokens.shape[1], dtype=torch.float64)[:, None] * speed
            x = x[:, [-1]] + torch.cat((angle.sin(), angle.cos()), 1).to(x.dtype)
            for layer in ("decoder_1", "decoder_2"):
                x = unit(x, w[f"{layer}_norm"])
                x = F.gelu(x @ w[layer] + w[f"{layer}_bias"])
        return unit(x, w["norm"]) @ w["head"] + w["head_bias"]


def cross_entropy(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def train_alone(model, task, seed, recipe):
    """Return the training losses by step, and loss and accuracy on the withheld rows."""
    inputs, targets, held, wanted = (torch.tensor(rows) for rows in (*task.train, *task.held_out))
    matrices = [w for w in model.parameters() if w.ndim > 1]
    vectors = [w for w in model.parameters() if w.ndim == 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.learning_rate, weight_decay=recipe.weight_decay, foreach=False,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, recipe.epochs, recipe.final_rate
    )
    losses = []
    for epoch in range(recipe.epochs):
        rows = order(seed, epoch, len(inputs))
        for begin in range(0, len(rows), recipe.batch_size):
            chosen = rows[begin : begin + recipe.batch_size]
            loss = cross_entropy(model(inputs[chosen]), targets[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        schedule.step()
    with torch.no_grad():
        logits = model(held)
    asked = wanted != -100
    right = (logits.argmax(-1) == wanted)[asked].double().mean().item()
    return losses, cross_entropy(logits, wanted).item(), right
