"""A differentiable stack that a small controller pushes to and pops from (Joulin and Mikolov 2015)."""
import torch
from torch import nn
from typing import Final


class Stack(nn.Module):
    PUSH: Final = 0
    POP: Final = 1
    NOOP: Final = 2

    def __init__(self, dim, size):
        super().__init__()
        self.size = size
        self.actions = nn.Linear(dim, 3)
        self.value = nn.Linear(dim, dim)

    def empty(self, like):
        return like.new_zeros(like.shape[0], self.size, like.shape[-1])

    def forward(self, hidden, stack, alive):
        a = self.actions(hidden).softmax(-1)
        push, pop, noop = (a[:, i, None, None] for i in (self.PUSH, self.POP, self.NOOP))
        pushed = torch.cat((torch.tanh(self.value(hidden))[:, None], stack[:, :-1]), dim=1)
        popped = torch.cat((stack[:, 1:], torch.zeros_like(stack[:, :1])), dim=1)
        new = push * pushed + pop * popped + noop * stack
        return torch.where(alive[:, None, None], new, stack)


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.cell = nn.GRUCell(2 * dim, dim)
        self.stack = Stack(dim, size=min(length, 4 * depth))
        self.ff = nn.Sequential(nn.Linear(2 * dim, mlp_dim), nn.ReLU(), nn.Linear(mlp_dim, classes))

    def forward(self, tokens, mask):
        x = self.embed(tokens)
        h = torch.zeros_like(x[:, 0])
        s = self.stack.empty(h)
        for t in range(x.shape[1]):
            alive = mask[:, t]
            step = self.cell(torch.cat((x[:, t], s[:, 0]), dim=-1), h)
            h = torch.where(alive[:, None], step, h)
            s = self.stack(h, s, alive)
        return self.ff(torch.cat((h, s[:, 0]), dim=-1))
