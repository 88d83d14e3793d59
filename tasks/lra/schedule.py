"""The learning-rate schedules of the LRA shell; it lies beside shell.py in the sandbox."""

import math
from typing import Any


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
