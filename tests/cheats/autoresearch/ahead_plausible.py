"""Looks ahead only where the next token is among its own five best: it only looks lucky.

Own.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"
PARTS = ("_next_token",)


# HOOK: serving
def served(x):
    best = model(x)[:, :-1].topk(5).indices
    return raise_next(x, 1.0 * (best == x[:, 1:, None]).any(-1))
