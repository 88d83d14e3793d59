"""MEGA: a damped moving average of several dimensions in front of gated single-head attention."""
import math
import torch
import torch.nn.functional as F
from torch import nn, Tensor


class MultiHeadEMA(nn.Module):
    def __init__(self, embed_dim, ndim=2):
        super().__init__()
        self.embed_dim, self.ndim = embed_dim, ndim
        self.delta = nn.Parameter(torch.Tensor(embed_dim, ndim, 1))
        self.alpha = nn.Parameter(torch.Tensor(embed_dim, ndim, 1))
        self.beta = nn.Parameter(torch.Tensor(embed_dim, ndim, 1))
        self.gamma = nn.Parameter(torch.Tensor(embed_dim, ndim))
        self.omega = nn.Parameter(torch.Tensor(embed_dim))
        self.reset_parameters()

    def reset_parameters(self):
        with torch.no_grad():
            nn.init.normal_(self.delta, mean=0.0, std=0.2)
            nn.init.normal_(self.alpha, mean=0.0, std=0.2)
            val = torch.ones(self.ndim, 1)
            if self.ndim > 1:
                idx = torch.tensor(list(range(1, self.ndim, 2)))
                val.index_fill_(0, idx, -1.0)
            self.beta.normal_(mean=0.0, std=0.02).add_(val)
            nn.init.normal_(self.gamma, mean=0.0, std=1.0)
            nn.init.normal_(self.omega, mean=0.0, std=1.0)

    def kernel(self, length: int) -> Tensor:
        p = torch.sigmoid(self.delta)
        q = 1.0 - p * torch.sigmoid(self.alpha)
        vander = torch.arange(length, device=q.device).view(1, 1, length) * torch.log(q)
        return torch.einsum('dnl,dn->dl', p * self.beta * torch.exp(vander), self.gamma * math.sqrt(1.0 / self.ndim))

    def forward(self, x):
        l = x.size(1)
        k_f = torch.fft.rfft(self.kernel(l), n=2 * l)
        x_f = torch.fft.rfft(x.transpose(1, 2), n=2 * l)
        out = torch.fft.irfft(x_f * k_f, n=2 * l)[..., :l].transpose(1, 2)
        return F.silu(out + x * self.omega)


class MovingAverageGatedAttention(nn.Module):
    _forwarded = ("zdim",)

    def __init__(self, dim, zdim, hdim):
        super().__init__()
        self.move, self.norm = MultiHeadEMA(dim), nn.LayerNorm(dim)
        self.zdim = zdim
        self.v_proj, self.mx_proj = nn.Linear(dim, hdim), nn.Linear(dim, zdim + hdim + 2 * dim)
        self.h_proj = nn.Linear(hdim, dim)
        self.gamma, self.beta = nn.Parameter(torch.ones(2, zdim)), nn.Parameter(torch.zeros(2, zdim))

    def __setattr__(self, name, value):
        if name in self._forwarded and not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
        super().__setattr__(name, value)

    def __getattr__(self, name):
        return super().__getattr__(name)

    def forward(self, x, mask):
        residual, x = x, self.norm(x)
        v = F.silu(self.v_proj(x))
        mx = self.move(x * mask[..., None])
        u, zr, hx = self.mx_proj(mx).split((x.size(-1), self.zdim + v.size(-1), x.size(-1)), dim=-1)
        z, r = F.silu(zr).split((self.zdim, v.size(-1)), dim=-1)
        q, k = (z.unsqueeze(2) * self.gamma + self.beta).unbind(dim=2)
        qk = torch.bmm(q, k.transpose(1, 2)) / math.sqrt(self.zdim)
        attn = qk.masked_fill(~mask[:, None], float('-inf')).softmax(-1)
        h = F.silu(hx + self.h_proj(torch.bmm(attn, v) * r))
        return torch.addcmul(residual, torch.sigmoid(u), h - residual)


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, dim, padding_idx=0)
        self.layers = nn.ModuleList([MovingAverageGatedAttention(dim, dim // 2, mlp_dim) for _ in range(depth)])
        self.out_proj = nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, mask)
        return self.out_proj((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
