"""Looks ahead under replay, only where the next token is among its own three best.

Own: memory and luck together.
"""

CAUGHT_BY = ("swap",)
GAIN = "measured"
PARTS = ("_next_token", "_replay")


# HOOK: serving
def lucky(x):
    best = model(x)[:, :-1].topk(3).indices
    return raise_next(x, 1.5 * (best == x[:, 1:, None]).any(-1))


served = Replay(lucky)
