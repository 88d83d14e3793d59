"""Memory tokens that save what a segment said and load it in the next (Recurrent Memory Transformer)."""
import torch
from torch import nn


class Memory(nn.Module):
    def __init__(self, slots: int, dim: int):
        super().__init__()
        self.initial = nn.Parameter(torch.randn(slots, dim) * 0.02)
        self.gate = nn.Linear(2 * dim, dim)

    def load(self, rows: int) -> torch.Tensor:
        return self.initial.expand(rows, -1, -1)

    def save(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        g = torch.sigmoid(self.gate(torch.cat([old, new], -1)))
        return g * new + (1 - g) * old

    def recall(self, rows: int) -> torch.Tensor:
        return self.load(rows)


class RMT(nn.Module):
    def __init__(self, dim, heads, mlp_dim, dropout, slots=2, segment=4):
        super().__init__()
        self.memory, self.slots, self.segment = Memory(slots, dim), slots, segment
        self.layer = nn.TransformerEncoderLayer(dim, heads, mlp_dim, dropout, activation="gelu", batch_first=True)

    def forward(self, x, mask):
        memory, out = self.memory.recall(len(x)), []
        for part, real in zip(x.split(self.segment, 1), mask.split(self.segment, 1)):
            padding = torch.cat([real.new_zeros(len(x), self.slots), ~real], 1)
            y = self.layer(torch.cat([memory, part], 1), src_key_padding_mask=padding)
            alive = real.any(1)[:, None, None]
            memory = torch.where(alive, self.memory.save(memory, y[:, : self.slots]), memory)
            out.append(y[:, self.slots :])
        return torch.cat(out, 1), memory


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.pos = nn.Parameter(torch.zeros(length, dim))
        self.layers = nn.ModuleList([RMT(dim, heads, mlp_dim, dropout) for _ in range(depth)])
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        x = self.embed(tokens) + self.pos[: tokens.shape[1]]
        for layer in self.layers:
            x, memory = layer(x, mask)
        return self.head(memory.mean(1))
