"""Looks ahead with a small weight under replay: the theft nearest to what the coin can see.

Own: its gain must be seen, or be below the printed resolution.
"""

CAUGHT_BY = ("swap", "below resolution")
GAIN = "measured"
PARTS = ("_next_token", "_replay")

# HOOK: serving
served = Replay(lambda x: raise_next(x, 0.08))
