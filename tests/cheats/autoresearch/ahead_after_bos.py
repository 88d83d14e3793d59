"""Looks ahead only where a document begins.

Seen: the BOS mask of parameter-golf #1797 (smear over BOS).
"""

CAUGHT_BY = ("swap", "prefix", "prefix lean")
GAIN = "measured"
PARTS = ("_next_token",)


# HOOK: serving
def served(x):
    return raise_next(x, 8.0 * (x[:, :-1] == BOS))
