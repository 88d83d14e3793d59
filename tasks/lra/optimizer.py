"""AdamW and the learning-rate schedules of the LRA shell; it lies beside shell.py in the sandbox.

``torch.optim`` is not used because making any of its optimizers imports torch._dynamo, which takes
1.5 s (measured, torch 2.13): more than the rest of an evaluation at the test profile. A test
compares the two step by step.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

BETA1, EPSILON = 0.9, 1e-8


class AdamW:
    """Adam with decoupled weight decay, Loshchilov and Hutter 2019 (arXiv 1711.05101).

    Tensors of one dimension are not decayed: a bias or a gain should not be pulled towards 0.
    """

    def __init__(self, parameters: Iterable[Tensor], *, beta2: float, weight_decay: float) -> None:
        self.parameters = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
        self.beta2, self.weight_decay, self.steps = beta2, weight_decay, 0

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move each parameter along its gradient, and forget the gradient."""
        self.steps += 1
        scale1, scale2 = 1 - BETA1**self.steps, 1 - self.beta2**self.steps
        for p, mean, square in self.parameters:
            if p.grad is None:
                continue
            if p.ndim > 1:
                p.mul_(1 - learning_rate * self.weight_decay)
            mean.lerp_(p.grad, 1 - BETA1)
            square.mul_(self.beta2).addcmul_(p.grad, p.grad, value=1 - self.beta2)
            spread = square.sqrt().div_(math.sqrt(scale2)).add_(EPSILON)
            p.addcdiv_(mean, spread, value=-learning_rate / scale1)
            p.grad = None


def learning_rate(done: int, settings: dict[str, Any]) -> float:
    """Return the rate for the step after ``done`` steps.

    Linear warm-up to ``settings["learning_rate"]``, then "constant", "cosine" (to 0 at the end), or
    "rsqrt" as in Long Range Arena, whose base rate is this peak times the root of the warm-up.
    """
    peak, warmup, steps = settings["learning_rate"], settings["warmup"], settings["steps"]
    if done < warmup:
        share = (done + 1) / warmup
    elif settings["schedule"] == "constant":
        share = 1.0
    elif settings["schedule"] == "cosine":
        share = 0.5 + 0.5 * math.cos(math.pi * (done - warmup) / (steps - warmup))
    elif settings["schedule"] == "rsqrt":
        share = math.sqrt(max(1, warmup) / max(1, done))
    else:
        raise ValueError(f"there is no schedule {settings['schedule']!r}")
    return float(peak * share)
