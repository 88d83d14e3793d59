"""A switch layer: every token goes to one of four experts, whatever the others do."""
import warnings
from collections import Counter, defaultdict, namedtuple

import torch
import torch.nn as nn
import torch.nn.functional as F

Routing = namedtuple("Routing", "expert weight")


class Expert(nn.Sequential):
    def __init__(self, d, h):
        super().__init__(nn.Linear(d, h), nn.SiLU(), nn.Linear(h, d))


class SwitchFeedForward(nn.Module):
    def __init__(self, d_model, d_ff, n_experts=4, jitter=0.0):
        super().__init__()
        self.experts = nn.ModuleList([Expert(d_model, d_ff) for _ in range(n_experts)])
        self.switch = nn.Linear(d_model, n_experts, bias=False)
        self.jitter = jitter
        self.sizes = defaultdict(int)

    def dispatch(self, x) -> Routing:
        if self.training and self.jitter:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
        prob = F.softmax(self.switch(x), dim=-1)
        weight, expert = prob.max(dim=-1)
        return Routing(expert=expert, weight=weight)

    def forward(self, x):
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        expert, weight = self.dispatch(x)
        out = torch.zeros_like(x)
        for index, module in enumerate(self.experts):
            chosen = (expert == index).nonzero(as_tuple=True)[0]
            if chosen.numel():
                out = out.index_copy(0, chosen, module(x[chosen]))
        return (out * weight[:, None]).view(shape)


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        if mlp_dim % 2:
            warnings.warn("an odd width", UserWarning, stacklevel=2)
        self.embed = nn.Embedding(vocabulary, dim)
        self.lstm = nn.LSTM(dim, dim // 2, bidirectional=True, batch_first=True)
        self.moe = nn.ModuleList([SwitchFeedForward(dim, mlp_dim // 2) for _ in range(depth)])
        self.ln = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)
        self.kinds = Counter(type(m).__name__ for m in self.modules())

    def forward(self, tokens, mask):
        x, _ = self.lstm(self.embed(tokens) * mask[..., None])
        for layer in self.moe:
            x = x + layer(self.ln(x))
        return self.head((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
