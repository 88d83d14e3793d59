"""Performer: FAVOR+ features; the activation goes by name, as configuration files have it."""
import math, functools
import torch
import torch.nn as nn
import torch.nn.functional as F

def orthogonal_gaussian_random_matrix(nb_rows, nb_cols, generator=None):
    blocks = []
    while sum(b.shape[0] for b in blocks) < nb_rows:
        q, _ = torch.linalg.qr(torch.randn(nb_cols, nb_cols, generator=generator))
        blocks.append(q.t())
    norms = torch.randn(nb_rows, nb_cols, generator=generator).norm(dim=1)
    return torch.diag(norms) @ torch.cat(blocks)[:nb_rows]

def softmax_kernel(data, *, projection_matrix, is_query, eps=1e-4):
    """exp(w.x - |x|^2 / 2); nothing here reads a file, opens one, or calls eval()."""
    data = data * data.shape[-1] ** -0.25
    dash = data @ projection_matrix.t()
    diag = data.pow(2).sum(-1, keepdim=True) / 2
    stab = dash.amax(dim=-1 if is_query else (-1, -2), keepdim=True).detach()
    return (torch.exp(dash - diag - stab) + eps) / math.sqrt(projection_matrix.shape[0])

class FastAttention(nn.Module):
    def __init__(self, dim_heads, nb_features=None):
        super().__init__()
        nb_features = nb_features or int(dim_heads * math.log(dim_heads)) + 1
        create = functools.partial(orthogonal_gaussian_random_matrix, nb_features, dim_heads)
        self.register_buffer('projection_matrix', create(generator=torch.Generator().manual_seed(0)))

    def forward(self, q, k, v, mask):
        kernel = functools.partial(softmax_kernel, projection_matrix=self.projection_matrix)
        q, k = kernel(q, is_query=True), kernel(k, is_query=False)
        k = k * mask[:, None, :, None]
        context = torch.einsum('...nd,...ne->...de', k, v)
        D_inv = 1. / torch.einsum('...nd,...d->...n', q, k.sum(dim=-2))
        return torch.einsum('...de,...nd,...n->...ne', context, q, D_inv)

class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout,
                 activation="gelu", norm="LayerNorm"):
        super().__init__()
        self.act = getattr(F, activation)
        norm_cls = getattr(nn, norm)
        self.heads = heads
        self.tok = nn.Embedding(vocabulary, dim); self.pos = nn.Embedding(length, dim)
        self.layers = nn.ModuleList([nn.ModuleDict(dict(
            norm=norm_cls(dim), qkv=nn.Linear(dim, 3 * dim), out=nn.Linear(dim, dim),
            attn=FastAttention(dim // heads), fc1=nn.Linear(dim, mlp_dim), fc2=nn.Linear(mlp_dim, dim),
        )) for _ in range(depth)])
        self.fc = nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        x = self.tok(tokens) + self.pos.weight[: tokens.shape[1]]
        for l in self.layers:
            q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in l['qkv'](l['norm'](x)).chunk(3, -1))
            x = x + l['out'](l['attn'](q, k, v, mask).transpose(1, 2).flatten(2))
            x = x + l['fc2'](self.act(l['fc1'](x)))
        return self.fc((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
