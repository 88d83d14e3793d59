"""RWKV's time mix as a loop over positions, numerically safe, with its authors' names."""
import torch, copy
import torch.nn as nn
from torch.nn import functional as F

class RWKV_TimeMix(nn.Module):
    def __init__(self, n_embd, layer_id):
        super().__init__()
        self.layer_id = layer_id
        self.time_shift = nn.ZeroPad2d((0, 0, 1, -1))
        with torch.no_grad():  # fancy init
            ratio = torch.arange(n_embd) / n_embd
            self.time_decay = nn.Parameter(-5 + 8 * ratio ** 0.7)
            self.time_first = nn.Parameter(torch.ones(n_embd) * 0.3)
            self.time_mix_k = nn.Parameter(ratio.clone())
            self.time_mix_v = nn.Parameter(ratio.clone() + 0.3 * layer_id)
            self.time_mix_r = nn.Parameter(0.5 * ratio)
        self.key, self.value, self.receptance, self.output = [nn.Linear(n_embd, n_embd, bias=False) for _ in range(4)]

    def wkv(self, k, v):
        w, u = -torch.exp(self.time_decay), self.time_first
        aa = bb = torch.zeros_like(k[:, 0])
        pp = torch.full_like(aa, -1e38)
        out = []
        for t in range(k.size(1)):
            kk, vv = k[:, t], v[:, t]
            p = torch.maximum(pp, u + kk)
            e1, e2 = torch.exp(pp - p), torch.exp(u + kk - p)
            out.append((e1 * aa + e2 * vv) / (e1 * bb + e2))
            p = torch.maximum(pp + w, kk)
            e1, e2 = torch.exp(pp + w - p), torch.exp(kk - p)
            aa, bb, pp = e1 * aa + e2 * vv, e1 * bb + e2, p
        return torch.stack(out, 1)

    def forward(self, x):
        xx = self.time_shift(x)
        mix = lambda m: x * m + xx * (1 - m)
        k, v, r = self.key(mix(self.time_mix_k)), self.value(mix(self.time_mix_v)), self.receptance(mix(self.time_mix_r))
        return self.output(torch.sigmoid(r) * self.wkv(k, v))

class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.emb = nn.Embedding(vocabulary, dim)
        self.ln0 = nn.LayerNorm(dim)
        self.fwd = nn.ModuleList([RWKV_TimeMix(dim, i) for i in range(depth)])
        self.bwd = copy.deepcopy(self.fwd)  # the same from the other end
        self.ffn = nn.ModuleList([nn.Sequential(nn.Linear(dim, mlp_dim), nn.ReLU(), nn.Linear(mlp_dim, dim)) for _ in range(depth)])
        self.head = nn.Linear(dim, classes, bias=False)

    def forward(self, tokens, mask):
        x = self.ln0(self.emb(tokens)) * mask[..., None]
        for f, b, ffn in zip(self.fwd, self.bwd, self.ffn):
            x = x + f(x) + b(x.flip(1)).flip(1)
            x = x + ffn(F.layer_norm(x, x.shape[-1:]))
        return self.head((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
