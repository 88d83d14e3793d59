"""S5: a multi-input state space by an associative scan, in the functional style of its JAX code."""
import functools
import operator
from typing import Callable, NamedTuple, Tuple

import torch
from torch import nn

Element = Tuple[torch.Tensor, torch.Tensor]


class SSM(NamedTuple):
    lambda_bar: torch.Tensor
    b_bar: torch.Tensor
    c: torch.Tensor


def binary_operator(q_i: Element, q_j: Element) -> Element:
    (a_i, b_i), (a_j, b_j) = q_i, q_j
    return a_j * a_i, a_j * b_i + b_j


def associative_scan(op: Callable[[Element, Element], Element], elems: Element) -> Element:
    """Hillis and Steele: log T rounds along dimension 1."""
    a, b = elems
    step = 1
    while step < b.shape[1]:
        left = (a[:, :-step], b[:, :-step])
        new_a, new_b = op(left, (a[:, step:], b[:, step:]))
        a, b = torch.cat((a[:, :step], new_a), 1), torch.cat((b[:, :step], new_b), 1)
        step <<= 1
    return a, b


def compose(*fns):
    return functools.reduce(lambda f, g: lambda x: g(f(x)), fns)


class S5SSM(nn.Module):
    def __init__(self, H: int, P: int):
        super().__init__()
        self.log_re = nn.Parameter(torch.full((P,), -0.7))
        self.im = nn.Parameter(torch.pi * torch.arange(P).float())
        self.B = nn.Parameter(torch.randn(P, H, 2) * H ** -0.5)
        self.C = nn.Parameter(torch.randn(H, P, 2) * P ** -0.5)
        self.log_step = nn.Parameter(torch.empty(P).uniform_(-6.0, -2.0))
        self.D = nn.Parameter(torch.ones(H))

    def discretize_zoh(self) -> SSM:
        Lambda = torch.complex(-torch.exp(self.log_re), self.im)
        bar = torch.exp(Lambda * self.log_step.exp())
        return SSM(bar, ((bar - 1) / Lambda)[:, None] * torch.view_as_complex(self.B), torch.view_as_complex(self.C))

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        ssm = self.discretize_zoh()
        Bu = torch.einsum("ph,blh->blp", ssm.b_bar, u.to(ssm.b_bar.dtype))
        _, xs = associative_scan(binary_operator, (ssm.lambda_bar.expand_as(Bu), Bu))
        return torch.einsum("hp,blp->blh", ssm.c, xs).real + self.D * u


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.ssms = nn.ModuleList([S5SSM(dim, mlp_dim // 4) for _ in range(depth)])
        self.gates = nn.ModuleList([nn.Linear(dim, dim) for _ in range(depth)])
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(depth)])
        self.dims = functools.reduce(operator.mul, (dim, depth), 1)
        self.out = nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        x = self.embed(tokens) * mask[..., None]
        for ssm, gate, norm in zip(self.ssms, self.gates, self.norms):
            y = compose(norm, ssm, nn.functional.gelu)(x)
            x = operator.add(x, y * torch.sigmoid(gate(y)))
        return self.out((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
