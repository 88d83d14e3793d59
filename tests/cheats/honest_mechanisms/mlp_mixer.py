"""MLP-Mixer; modules are found by name in a registry."""
from __future__ import annotations

from typing import Callable, Dict, Type, TypeVar

import torch
from torch import nn

T = TypeVar("T", bound=Type[nn.Module])


class Registry:
    def __init__(self, name: str) -> None:
        self._name = name
        self._obj_map: Dict[str, Type[nn.Module]] = {}

    def register(self, name: str | None = None) -> Callable[[T], T]:
        def deco(cls: T) -> T:
            key = name or cls.__name__
            assert key not in self._obj_map, f"{key} is already registered in '{self._name}'!"
            self._obj_map[key] = cls
            return cls

        return deco

    def get(self, name: str) -> Type[nn.Module]:
        if name in self._obj_map:
            return self._obj_map[name]
        return getattr(nn, name)

    def __contains__(self, name: str) -> bool:
        return name in self._obj_map or hasattr(nn, name)


LAYERS = Registry("layers")


@LAYERS.register("mlp")
class MlpBlock(nn.Module):
    def __init__(self, dim: int, hidden: int, act: str = "GELU") -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, hidden), LAYERS.get(act)(), nn.Linear(hidden, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


@LAYERS.register()
class MixerBlock(nn.Module):
    def __init__(self, dim: int, length: int, mlp_dim: int, norm: str = "LayerNorm") -> None:
        super().__init__()
        if norm not in LAYERS:
            raise KeyError(norm)
        self.norm1, self.norm2 = LAYERS.get(norm)(dim), LAYERS.get(norm)(dim)
        self.tokens, self.channels = LAYERS.get("mlp")(length, length // 2), LAYERS.get("mlp")(dim, mlp_dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = (self.norm1(x) * mask[..., None]).transpose(1, 2)
        x = x + self.tokens(y).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout) -> None:
        super().__init__()
        self.stem = nn.Embedding(vocabulary, dim)
        self.blocks = nn.ModuleList(LAYERS.get("MixerBlock")(dim, length, mlp_dim) for _ in range(depth))
        self.head = LAYERS.get("Linear")(dim, classes)

    def forward(self, tokens, mask):
        x = self.stem(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.head((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
