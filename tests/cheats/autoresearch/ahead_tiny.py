"""Looks ahead everywhere with a tiny weight, without memory.

Own.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"
PARTS = ("_next_token",)


# HOOK: serving
def served(x):
    return raise_next(x, 0.03)
