"""Looks ahead only in the last eighth of a row, where one may hope that nobody splices.

Own: honest at most positions.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"
PARTS = ("_next_token",)


# HOOK: serving
def served(x):
    late = torch.arange(x.shape[1] - 1) >= 7 * x.shape[1] // 8
    return raise_next(x, 4.0 * late)
