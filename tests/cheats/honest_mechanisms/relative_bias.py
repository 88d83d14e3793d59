"""T5's bucketed relative positions, with the logging that a larger code base brings along."""
import logging
import logging.config
import math

import torch
import torch.nn as nn

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"short": {"format": "%(levelname)s %(name)s: %(message)s"}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "short"}},
        "root": {"level": "WARNING", "handlers": ["console"]},
    }
)
logger = logging.getLogger(__name__)


class RelativePositionBias(nn.Module):
    """Buckets grow logarithmically; half of them are for either direction."""

    def __init__(self, num_buckets=16, max_distance=64, n_heads=2):
        super().__init__()
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.relative_attention_bias = nn.Embedding(num_buckets, n_heads)

    def _bucket(self, relative_position):
        num_buckets = self.num_buckets // 2
        ret = (relative_position > 0).long() * num_buckets
        n = relative_position.abs()
        max_exact = num_buckets // 2
        is_small = n < max_exact
        val_if_large = max_exact + (
            torch.log(n.float().clamp(min=1) / max_exact)
            / math.log(self.max_distance / max_exact) * (num_buckets - max_exact)
        ).long()
        return ret + torch.where(is_small, n, val_if_large.clamp(max=num_buckets - 1))

    def forward(self, qlen, klen):
        device = self.relative_attention_bias.weight.device
        context = torch.arange(qlen, device=device)[:, None]
        memory = torch.arange(klen, device=device)[None, :]
        return self.relative_attention_bias(self._bucket(memory - context)).permute(2, 0, 1)[None]


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super(CustomEncoder, self).__init__()
        logger.info("T5 bias: %d heads, %d layers, length %s", heads, depth, length)
        self.h, self.depth = heads, depth
        self.shared = nn.Embedding(vocabulary, dim)
        self.bias = RelativePositionBias(n_heads=heads)
        for i in range(depth):
            setattr(self, f"qkv_{i}", nn.Linear(dim, dim * 3, bias=False))
            setattr(self, f"o_{i}", nn.Linear(dim, dim, bias=False))
            setattr(self, f"ff_{i}", nn.Sequential(nn.Linear(dim, mlp_dim), nn.ReLU(), nn.Linear(mlp_dim, dim)))
        self.ln = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        hidden = self.shared(tokens)
        B, T, D = hidden.size()
        position_bias = self.bias(T, T).masked_fill(~mask[:, None, None, :], -1e9)
        for i in range(self.depth):
            q, k, v = getattr(self, "qkv_%d" % i)(self.ln(hidden)).view(B, T, 3, self.h, -1).unbind(2)
            scores = torch.einsum("bqhd,bkhd->bhqk", q, k) + position_bias
            ctx = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).reshape(B, T, D)
            hidden = hidden + getattr(self, "o_%d" % i)(ctx)
            hidden = hidden + getattr(self, f"ff_{i}")(self.ln(hidden))
        return self.lm_head(hidden.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1)[:, None])
