"""Attention along a tree: every node attends to its children, hears its parent, round by round.

On ListOps the tree is that of the brackets, read off the tokens; what is computed along it is
learned. Elsewhere it is an even one over the places, in which a token waits for the eighth, the
64th and so on before it. In the spirit of Tree-LSTM, Tai et al. 2015 (arXiv 1503.00075), with
attention over children as in graph attention, Velickovic et al. 2017 (arXiv 1710.10903), and one
block used again and again as in the Universal Transformer, Dehghani et al. 2018 (arXiv
1807.03819). Knows nothing of MIN, MAX, MED or SM but their ids. Time O(T d^2 log T) with about
log T rounds, memory O(T d log T).
"""

import math

import torch
from torch import Tensor, nn

BRACKETED = 16  # the vocabulary of ListOps
FIRST_OPERATOR, CLOSE = 11, 15
LEVELS = 16  # deeper brackets are attached to their ancestor at this depth
ARITY = 8
SHARPNESS = 4.0
KERNEL = 3


def bracket_parents(tokens: Tensor) -> Tensor:
    """Return for each token the place of the operator it is an argument of, (B, T).

    The root and the padding point at place 0, a closing bracket at its own operator.
    """
    opens = (tokens >= FIRST_OPERATOR) & (tokens < CLOSE)
    closes = tokens == CLOSE
    level = opens.long().cumsum(1) - closes.long().cumsum(1)  # brackets open after the token
    above = (level - opens.long() + closes.long()).clamp(0, LEVELS)  # brackets open around it
    place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    parent = torch.zeros_like(tokens)
    for depth in range(1, LEVELS + 1):
        # The latest operator seen at this depth is the one that is still open.
        latest = torch.where(opens & (level == depth), place, 0).cummax(dim=1).values
        parent = torch.where(above == depth, latest, parent)
    return parent


def even_parents(tokens: Tensor) -> Tensor:
    """Return for each place, written in base ARITY, that with its last digit but 0 set to 0."""
    place = torch.arange(tokens.shape[1], device=tokens.device)
    parent, step = place, 1
    while step < tokens.shape[1]:
        digit = place // step % ARITY
        parent = torch.where(parent == place, place - digit * step, parent)
        step *= ARITY
    return parent.expand_as(tokens)


def tree_attention(q: Tensor, k: Tensor, v: Tensor, parent: Tensor, is_child: Tensor) -> Tensor:
    """Return what each node of (B, T, H, D) gathers from its children, those in is_child (B, T).

    The first half of the heads takes a softmax mean over the children, which can pick one of them;
    the others add up what a sigmoid lets through, for a mean forgets how much there was.
    """
    heads, width = q.shape[2:]
    index = parent[..., None, None].expand_as(q)
    score = (q.gather(1, index) * k).sum(-1) / width
    averages = torch.arange(heads, device=q.device) < (heads + 1) // 2
    # tanh bounds the scores, so that exp needs no maximum per group of siblings.
    weight = torch.where(averages, (SHARPNESS * score.tanh()).exp(), score.sigmoid())
    weight = weight * is_child[..., None]
    total = torch.zeros_like(weight).scatter_add(1, index[..., 0], weight)
    heard = weight[..., None] * v
    y = torch.zeros_like(heard).scatter_add(1, index, heard)
    return y / torch.where(averages, total + 1e-6, 1.0)[..., None]


class TreeAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.local = nn.Conv1d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.down = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor, parent: Tensor, is_child: Tensor) -> Tensor:
        x = x * mask[..., None]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        y = self.out(tree_attention(q, k, v, parent, is_child).flatten(2))
        heard = self.down(x)
        heard = heard.gather(1, parent[..., None].expand_as(heard)) * is_child[..., None]
        return y + heard + self.local(x.transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixer = TreeAttention(dim, heads)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, parent: Tensor, is_child: Tensor) -> Tensor:
        x = x + self.drop(self.mixer(self.norm1(x), mask, parent, is_child))
        return x + self.drop(self.mlp(self.norm2(x)))


class CustomEncoder(nn.Module):
    def __init__(
        self,
        *,
        vocabulary: int,
        classes: int,
        length: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.bracketed = vocabulary == BRACKETED
        # Brackets nest about as deep as the logarithm of the length: 3 rounds for 32 tokens,
        # 9 for 2,000. One block serves all rounds, so ``depth`` has no say.
        self.rounds = max(2, math.ceil(math.log2(length)) - 2)
        self.embed = nn.Embedding(vocabulary, dim)
        self.block = Block(dim, heads, mlp_dim, dropout)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(2 * dim, classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        parent = bracket_parents(tokens) if self.bracketed else even_parents(tokens)
        is_child = mask & (tokens != CLOSE) if self.bracketed else mask.clone()
        is_child[:, 0] = False
        x = self.embed(tokens)
        for _ in range(self.rounds):
            x = self.block(x, mask, parent, is_child)
        return self.head(summary(self.norm(x), mask))


def summary(x: Tensor, mask: Tensor) -> Tensor:
    """Return (B, 2 dim): the first token, and the mean over the real ones."""
    real = mask[..., None].to(x.dtype)
    mean = (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    return torch.cat((x[:, 0], mean), dim=1)
