"""Scaled cosine attention (Swin V2) with weight norm and a parametrisation of its own."""
import numpy as np
import torch
import torch.nn.utils.parametrize as parametrize
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, weight_norm


class Symmetric(nn.Module):
    def forward(self, X):
        return X.triu() + X.triu(1).transpose(-1, -2)


class CosineAttention(nn.Module):
    r"""cos(q, k) / tau + B.

    The bias of a distance is a small network's; see eq. 3. Weights are never saved or loaded.
    """

    def __init__(self, dim, num_heads, length):
        super().__init__()
        self.num_heads = num_heads
        self.logit_scale = nn.Parameter(torch.log(10 * torch.ones((num_heads, 1, 1))))
        self.cpb_mlp = nn.Sequential(nn.Linear(1, 16), nn.ReLU(inplace=True), nn.Linear(16, num_heads, bias=False))
        table = torch.from_numpy(np.sign(np.arange(-length + 1, length)) * np.log2(np.abs(np.arange(-length + 1, length)) + 1.0))
        self.register_buffer("relative_coords_table", table.float()[:, None], persistent=False)
        index = torch.arange(length)[:, None] - torch.arange(length)[None] + length - 1
        self.register_buffer("relative_index", index, persistent=False)
        self.qkv = weight_norm(nn.Linear(dim, dim * 3, bias=False))
        self.proj = orthogonal(nn.Linear(dim, dim, bias=False))

    def forward(self, x, mask):
        B_, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B_, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attn = nn.functional.normalize(q, dim=-1) @ nn.functional.normalize(k, dim=-1).transpose(-2, -1)
        attn = attn * torch.clamp(self.logit_scale, max=np.log(1.0 / 0.01)).exp()
        bias = self.cpb_mlp(self.relative_coords_table)[self.relative_index[:N, :N]].permute(2, 0, 1)
        attn = attn + 16 * torch.sigmoid(bias)
        attn = attn.masked_fill(~mask[:, None, None, :], -100.0 * 100).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(B_, N, C))


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.patch_embed = nn.Embedding(vocabulary, dim)
        self.attns = nn.ModuleList([CosineAttention(dim, heads, length) for _ in range(depth)])
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(depth)])
        self.mix = nn.Linear(dim, dim)
        parametrize.register_parametrization(self.mix, "weight", Symmetric())
        self.head = nn.Linear(dim, classes) if classes > 0 else nn.Identity()

    def forward(self, tokens, mask):
        x = self.patch_embed(tokens)
        for attn, norm in zip(self.attns, self.norms):
            x = x + norm(attn(x, mask))  # res-post-norm
        x = x + self.mix(x).relu()
        return self.head(torch.where(mask[..., None], x, 0.0).sum(1) / mask.sum(1, keepdim=True))
