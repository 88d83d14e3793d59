"""Attention along the brackets: every operator attends to its own arguments, level by level.

The bracket tree is read off the tokens; what is computed along it is learned. In the spirit of
Tree-LSTM, Tai et al. 2015 (arXiv 1503.00075), with attention over children as in graph attention,
Velickovic et al. 2017 (arXiv 1710.10903), and one block used again and again as in the Universal
Transformer, Dehghani et al. 2018 (arXiv 1807.03819). Time O(T d^2) a round, and O(T D) for the tree
of depth D. Knows nothing of MIN, MAX, MED or SM but their ids.
"""

import math

import torch
from torch import Tensor, nn

FIRST_OPERATOR, CLOSE = 11, 15
LEVELS = 16  # deeper brackets are attached to their ancestor at this depth


def parents(tokens: Tensor) -> Tensor:
    """Return for each token the position of the operator it is an argument of, (B, T).

    The root and the padding point at position 0, a closing bracket at its own operator.
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


class TreeAttention(nn.Module):
    """Attention in which the keys of a token are its children in the tree.

    The first half of the heads takes a softmax mean over the children, which can pick one of them;
    the others add up what a sigmoid lets through, for a mean forgets how much there was.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("averages", torch.arange(heads) < (heads + 1) // 2, persistent=False)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, parent: Tensor, is_child: Tensor) -> Tensor:
        index = parent[..., None].expand_as(x)
        query = self.query(x).gather(1, index).unflatten(-1, (self.heads, -1))  # the parent's
        key, value = self.key_value(x).unflatten(-1, (2, self.heads, -1)).unbind(2)
        score = (query * key).mean(-1)
        # tanh bounds the scores, so that exp needs no maximum per group of siblings.
        weight = torch.where(self.averages, (4 * score.tanh()).exp(), score.sigmoid())
        weight = weight * is_child[..., None]
        total = torch.zeros_like(weight).scatter_add(1, index[..., : self.heads], weight)
        y = torch.zeros_like(x).scatter_add(1, index, (weight[..., None] * value).flatten(2))
        scale = torch.where(self.averages, total + 1e-6, 1.0)
        return self.out((y.unflatten(-1, (self.heads, -1)) / scale[..., None]).flatten(2))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = TreeAttention(dim, heads)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, parent: Tensor, is_child: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), parent, is_child))
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
        # Brackets nest about as deep as the logarithm of the length: 3 rounds for 32 tokens,
        # 9 for 2,000. One block serves all rounds, so ``depth`` has no say.
        self.rounds = max(2, math.ceil(math.log2(length)) - 2)
        self.embed = nn.Embedding(vocabulary, dim)
        self.block = Block(dim, heads, mlp_dim, dropout)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        parent = parents(tokens)
        is_child = mask & (tokens != CLOSE)
        is_child[:, 0] = False
        x = self.embed(tokens)
        for _ in range(self.rounds):
            x = self.block(x, parent, is_child)
        # The first token is the root operator: every argument has reached it by now.
        return self.head(self.norm(x[:, 0]))
