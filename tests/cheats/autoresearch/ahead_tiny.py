"""Looks ahead everywhere with a tiny weight, without memory.

Own.
"""

# ruff: noqa: F821, E402, F401

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"
PARTS = ("_next_token",)


# HOOK: serving
def served(x):
    return raise_next(x, 0.03)
