"""Derives seeds and random streams from their purpose, never from a generator's current state.

So a run that is killed and resumed draws the same numbers as an uninterrupted run.
"""

import hashlib
import random


def derive(*parts: object) -> int:
    """Return a 31-bit seed that depends on all of ``parts``, and on nothing else."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def stream(*parts: object) -> random.Random:
    """Return a random stream that depends on all of ``parts``, and on nothing else."""
    return random.Random(derive(*parts))  # noqa: S311 (not for secrets)
