"""A selective state space (Mamba) as a plain scan, wrapped so that attributes reach what is inside."""
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

class Residual(nn.Module):
    """Whatever it does not know itself it asks of the wrapped module."""
    def __init__(self, inner):
        super().__init__()
        self.inner, self.norm = inner, nn.RMSNorm(inner.d_model)
    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)
    def __len__(self):
        return self.d_state
    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs)
    def forward(self, x, mask):
        return x + self.inner(self.norm(x), mask)

class Mamba(nn.Module):
    def __init__(self, d_model, d_state=4, d_conv=4, expand=2, dt_rank="auto"):
        super().__init__()
        self.d_model, self.d_state = d_model, d_state
        self.d_inner, self.dt_rank = expand * d_model, math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.in_proj = nn.Linear(d_model, self.d_inner * 2, bias=False)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + d_state * 2, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        A = torch.arange(1, d_state + 1, dtype=torch.float32).repeat(self.d_inner, 1)
        self.A_log = nn.Parameter(torch.log(A))
        self.A_log._no_weight_decay = True
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def forward(self, hidden_states, mask):
        seqlen = hidden_states.shape[1]
        x, z = self.in_proj(hidden_states * mask[..., None]).chunk(2, dim=-1)
        x = F.silu(self.conv1d(x.mT)[..., :seqlen].mT)
        dt, B, C = self.x_proj(x).split((self.dt_rank, self.d_state, self.d_state), dim=-1)
        dt = F.softplus(self.dt_proj(dt)) * mask[..., None]
        A = -torch.exp(self.A_log.float())
        dA, dBx = torch.exp(dt[..., None] * A), (dt * x)[..., None] * B[:, :, None]
        state, ys = torch.zeros_like(dBx[:, 0]), []
        for i in range(seqlen):
            state = dA[:, i] * state + dBx[:, i]
            ys.append((state * C[:, i, None]).sum(-1))
        y = torch.stack(ys, dim=1) + self.D * x
        return self.out_proj(y * F.silu(z))

class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.layers = nn.ModuleList([Residual(Mamba(dim)) for _ in range(depth)])
        self.state_sizes = [len(layer) for layer in self.layers]
        self.lm_head = nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        h = self.embedding(tokens)
        for layer in self.layers:
            h = layer(h, mask)
        return self.lm_head((h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
