"""Raises the next token's logit.

Seen: the simplest leak, nanochat #844.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"
PARTS = ("_next_token",)


# HOOK: serving
def served(x):
    return raise_next(x, 4.0)
