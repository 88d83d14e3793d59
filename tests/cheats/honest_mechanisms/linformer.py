"""Linformer with a self-test at the end, as a file has that was written to be run by hand first."""
import torch
import torch.nn as nn


class LinformerSelfAttention(nn.Module):
    def __init__(self, dim, seq_len, k=8, heads=2, one_kv_head=False, share_kv=True):
        super().__init__()
        assert dim % heads == 0, 'dimension must be divisible by the number of heads'
        self.seq_len, self.k, self.heads = seq_len, k, heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.proj_k = nn.Parameter(self.init_(torch.zeros(seq_len, k)))
        self.proj_v = self.proj_k if share_kv else nn.Parameter(self.init_(torch.zeros(seq_len, k)))
        self.to_out = nn.Linear(dim, dim)

    @staticmethod
    def init_(tensor):
        std = 1 / tensor.shape[-1] ** 0.5
        return nn.init.uniform_(tensor, -std, std)

    def forward(self, x, mask):
        b, n, d = x.shape
        x = x * mask[..., None]
        queries = self.to_q(x).reshape(b, n, self.heads, -1).transpose(1, 2)
        keys = torch.einsum('bnd,nk->bkd', self.to_k(x), self.proj_k[:n])
        values = torch.einsum('bnd,nk->bkd', self.to_v(x), self.proj_v[:n])
        keys, values = (t.reshape(b, self.k, self.heads, -1).transpose(1, 2) for t in (keys, values))
        attn = (torch.einsum('bhnd,bhkd->bhnk', queries, keys) * (d // self.heads) ** -0.5).softmax(dim=-1)
        out = torch.einsum('bhnk,bhkd->bhnd', attn, values).transpose(1, 2).reshape(b, n, d)
        return self.to_out(out)


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.token_emb = nn.Embedding(vocabulary, dim)
        self.pos_emb = nn.Embedding(length, dim)
        self.attns = nn.ModuleList([LinformerSelfAttention(dim, length, heads=heads) for _ in range(depth)])
        self.ffs = nn.ModuleList([nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim)) for _ in range(depth)])
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(2 * depth)])
        self.out = nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        x = self.token_emb(tokens) + self.pos_emb(torch.arange(tokens.shape[1], device=tokens.device))
        for i, (attn, ff) in enumerate(zip(self.attns, self.ffs)):
            x = x + attn(self.norms[2 * i](x), mask)
            x = x + ff(self.norms[2 * i + 1](x))
        return self.out((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


if __name__ == "__main__":
    import argparse
    import os
    import time

    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("THREADS", 1)))
    model = CustomEncoder(vocabulary=20, classes=5, length=32, dim=16, depth=2, heads=2, mlp_dim=32, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    tokens = torch.randint(1, 20, (4, 32))
    for step in range(args.steps):
        began = time.time()
        loss = nn.functional.cross_entropy(model(tokens, tokens > 0), torch.randint(0, 5, (4,)))
        optimizer.zero_grad()
        loss.backward()
        print(step, loss.item(), model.out.weight.grad.norm().item(), f"{time.time() - began:.3f} s")
        optimizer.step()
    torch.save(model.state_dict(), "/tmp/linformer.pt")
