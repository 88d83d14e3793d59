"""ALBERT: one layer for all depths, factorised embeddings, a Hugging Face way to write it."""
from typing import Any, Dict, List, Optional, Tuple, Union

import torch
import torch.utils.checkpoint
from torch import nn

ACT2FN = {"gelu": nn.functional.gelu, "relu": nn.functional.relu, "gelu_new": lambda x: nn.functional.gelu(x, approximate="tanh")}


class AlbertConfig:
    model_type = "albert"
    __slots__ = ("__weakref__", "hidden_size", "embedding_size", "num_attention_heads", "hidden_act")

    def __init__(self, hidden_size=64, embedding_size=8, num_attention_heads=2, hidden_act="gelu_new", **kwargs: Any):
        self.hidden_size, self.embedding_size = hidden_size, embedding_size
        self.num_attention_heads, self.hidden_act = num_attention_heads, hidden_act

    def to_dict(self) -> Dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")}


class AlbertLayer(nn.Module):
    def __init__(self, config: AlbertConfig, intermediate: int):
        super().__init__()
        self.config = config
        self.query, self.key, self.value, self.dense = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(4))
        self.full_layer_layer_norm = nn.LayerNorm(config.hidden_size, eps=1e-12)
        self.ffn, self.ffn_output = nn.Linear(config.hidden_size, intermediate), nn.Linear(intermediate, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act] if isinstance(config.hidden_act, str) else config.hidden_act

    def transpose_for_scores(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size()[:-1] + (self.config.num_attention_heads, -1)).permute(0, 2, 1, 3)

    def forward(self, hidden_states, attention_mask: Optional[torch.Tensor] = None) -> Tuple[torch.Tensor, ...]:
        q, k, v = (self.transpose_for_scores(f(hidden_states)) for f in (self.query, self.key, self.value))
        scores = torch.matmul(q, k.transpose(-1, -2)) / q.size(-1) ** 0.5
        if attention_mask is not None:
            scores = scores + attention_mask
        context = torch.matmul(scores.softmax(dim=-1), v).transpose(2, 1).flatten(2)
        hidden_states = self.full_layer_layer_norm(hidden_states + self.dense(context))
        return (hidden_states + self.ffn_output(self.activation(self.ffn(hidden_states))), scores)


class CustomEncoder(nn.Module):
    _tied: List[str] = ["albert_layer"]

    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout, config: Union[AlbertConfig, None] = None):
        super().__init__()
        config = config or AlbertConfig(hidden_size=dim, num_attention_heads=heads, embedding_size=dim // 2)
        self.config, self.num_hidden_layers = config, depth
        self.word_embeddings = nn.Embedding(vocabulary, config.embedding_size)
        self.position_embeddings = nn.Embedding(length, config.embedding_size)
        self.register_buffer("position_ids", torch.arange(length).expand((1, -1)), persistent=False)
        self.mapping_in = nn.Linear(config.embedding_size, config.hidden_size)
        self.albert_layer = AlbertLayer(config, mlp_dim)
        self.pooler, self.classifier = nn.Linear(dim, dim), nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        x = self.word_embeddings(tokens) + self.position_embeddings(self.position_ids[:, : tokens.size(1)])
        x = self.mapping_in(x)
        extended = (1.0 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for _ in range(self.num_hidden_layers):
            x, *_ = self.albert_layer(x, extended)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))
