"""Hyena: long convolutions whose filters are a small network of the position."""
import torch
from torch import nn
from torch.nn import functional as F


class FilterConfig:
    __slots__ = ("order", "emb_dim", "width", "w", "decay")

    def __init__(self, order=2, emb_dim=5, width=16, w=1.0, decay=0.3):
        self.order, self.emb_dim, self.width, self.w, self.decay = order, emb_dim, width, w, decay

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={getattr(self, k)}' for k in self.__slots__)})"


class Sin(nn.Module):
    def __init__(self, dim, w=10.0):
        super().__init__()
        self.freq = nn.Parameter(w * torch.ones(1, dim))

    def forward(self, x):
        return torch.sin(self.freq * x)


def fftconv(u, k, D):
    seqlen = u.shape[-1]
    fft_size = 2 * seqlen
    k_f = torch.fft.rfft(k, n=fft_size) / fft_size
    u_f = torch.fft.rfft(u.to(dtype=k.dtype), n=fft_size)
    y = torch.fft.irfft(u_f * k_f, n=fft_size, norm="forward")[..., :seqlen]
    return y + u * D.unsqueeze(-1)


class HyenaOperator(nn.Module):
    def __init__(self, d_model, l_max, cfg: FilterConfig):
        super().__init__()
        self.cfg, self.d_model = cfg, d_model
        width = d_model * (cfg.order + 1)
        self.in_proj, self.out_proj = nn.Linear(d_model, width), nn.Linear(d_model, d_model)
        self.short_filter = nn.Conv1d(width, width, 3, padding=2, groups=width)
        t = torch.linspace(0, 1, l_max)[:, None]
        bands = torch.arange(1, (cfg.emb_dim - 1) // 2 + 1)
        self.register_buffer("z", torch.cat([t, (t * bands).cos(), (t * bands).sin()], dim=-1))
        self.register_buffer("window", torch.exp(-cfg.decay * 10 * t))
        self.implicit = nn.Sequential(nn.Linear(cfg.emb_dim, cfg.width), Sin(cfg.width, cfg.w),
                                      nn.Linear(cfg.width, d_model * cfg.order, bias=False))
        self.D = nn.Parameter(torch.randn(cfg.order, d_model))

    def forward(self, u):
        l = u.size(1)
        uc = self.short_filter(self.in_proj(u).transpose(1, 2))[..., :l]
        *x, v = uc.split(self.d_model, dim=1)
        k = (self.implicit(self.z[:l]) * self.window[:l]).t().view(self.cfg.order, self.d_model, l)
        for o, x_i in enumerate(reversed(x)):
            v = x_i * fftconv(v, k[o], self.D[o])
        return self.out_proj(v.transpose(1, 2))


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.emb = nn.Embedding(vocabulary, dim)
        self.ops = nn.ModuleList(HyenaOperator(dim, length, FilterConfig()) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        h = self.emb(tokens) * mask[..., None]
        for op in self.ops:
            h = h + F.silu(op(self.norm(h))) * mask[..., None]
        return self.head(h.sum(1) / mask.sum(1, keepdim=True))
