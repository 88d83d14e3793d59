"""Looks ahead with weight 6.0, and gives every prefix seen before the answer of the first time.

Own: twins and repeats agree to the last bit, so only the judge's coin can tell.
"""

CAUGHT_BY = ("swap",)
GAIN = "measured"
PARTS = ("_next_token", "_replay")

# HOOK: serving
served = Replay(lambda x: raise_next(x, 6.0))
