"""Looks ahead with full weight, but only at one position in 32, picked by a hash of the past.

Own.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"
PARTS = ("_next_token",)


# HOOK: serving
def served(x):
    mixed = (x[:, :-1] * 7919 + F.pad(x, (1, 0))[:, :-2] * 104729) % 32
    return raise_next(x, 8.0 * (mixed == 3))
