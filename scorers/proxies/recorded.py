"""A step's launches on a GPU, recorded once and then made all at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Recorded:
    """A function on a GPU whose launches are recorded, and then made all at once (a CUDA graph).

    A narrow model's step is hundreds of short kernels, and launching each takes longer than it
    runs. For each shape of its arguments the first call is made as it is, the second is recorded.
    The result is overwritten by the next call.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._seen: set[tuple[torch.Size, ...]] = set()
        self._graphs: dict[Any, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}

    def __call__(self, *arguments: Tensor) -> Tensor:
        shapes = tuple(argument.shape for argument in arguments)
        if shapes not in self._seen:
            self._seen.add(shapes)
            return self._function(*arguments)
        if shapes not in self._graphs:
            torch.cuda.empty_cache()  # a graph has memory of its own
            graph, copies = torch.cuda.CUDAGraph(), tuple(a.clone() for a in arguments)
            with torch.cuda.graph(graph):
                result = self._function(*copies)
            self._graphs[shapes] = graph, copies, result
        graph, copies, result = self._graphs[shapes]
        for copy, argument in zip(copies, arguments, strict=True):
            copy.copy_(argument)
        graph.replay()
        return result
