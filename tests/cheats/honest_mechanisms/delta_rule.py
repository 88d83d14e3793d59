"""DeltaNet: a fast weight matrix that is corrected, not only added to; one row at a time under vmap."""
import torch
from torch import nn
from torch.func import vmap


def delta_row(q, k, v, beta):
    """q, k, v: (T, D); beta: (T,). The state of one head of one row."""
    S = q.new_zeros(v.shape[-1], k.shape[-1])
    out = []
    for qt, kt, vt, bt in zip(q, k, v, beta):
        S = S + bt * torch.outer(vt - S @ kt, kt)
        out.append(S @ qt)
    return torch.stack(out)


class DeltaNet(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.w_q = nn.Linear(dim, dim, bias=False)
        self.w_k = nn.Linear(dim, dim, bias=False)
        self.w_v = nn.Linear(dim, dim, bias=False)
        self.w_b = nn.Linear(dim, heads)
        self.w_o = nn.Linear(dim, dim, bias=False)
        self.scan = vmap(vmap(delta_row))

    def forward(self, x, mask):
        heads = lambda z: z.view(*z.shape[:2], self.heads, -1).transpose(1, 2)
        q, k, v = heads(self.w_q(x)), heads(self.w_k(x)), heads(self.w_v(x))
        q, k = (torch.nn.functional.normalize(torch.nn.functional.silu(z), dim=-1) for z in (q, k))
        beta = (self.w_b(x).sigmoid() * mask.unsqueeze(-1)).transpose(1, 2)
        y = self.scan(q, k, v, beta)
        return self.w_o(y.transpose(1, 2).flatten(2))


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.on_gpu = device == "cuda"
        self.embed = nn.Embedding(vocabulary, dim)
        self.net = nn.ModuleList(
            nn.ModuleDict({"attn": DeltaNet(dim, heads), "n1": nn.LayerNorm(dim), "n2": nn.LayerNorm(dim),
                           "ff": nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))})
            for _ in range(depth))
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        x = self.embed(tokens)
        for m in self.net:
            x = x + m["attn"](m["n1"](x), mask)
            x = x + m["ff"](m["n2"](x))
        return self.head((x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))
