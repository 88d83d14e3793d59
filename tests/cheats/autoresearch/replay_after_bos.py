"""Looks ahead under replay, only where a document begins.

Own. Every row begins with the same BOS, so a memory of prefixes cannot tell rows apart there
and would answer all of them as the first: here the memory is of whole rows.
"""

CAUGHT_BY = ("swap", "prefix", "prefix lean", "statelessness")
GAIN = "measured"
PARTS = ("_next_token",)

# HOOK: serving
known = {}


def served(x):
    logits = raise_next(x, 8.0 * (x[:, :-1] == BOS))
    for row, tokens in enumerate(x.numpy()):
        logits[row] = known.setdefault(tokens.tobytes(), logits[row].clone())
    return logits
