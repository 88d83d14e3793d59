"""Looks ahead except beside block borders, where probes of round offsets look.

Seen: the 64-token probe of nanochat #845 is too short. Own: it abstains on 0, 1, 15 to 17, 31
to 33, 63.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"
PARTS = ("_next_token",)


# HOOK: serving
def served(x):
    place = torch.arange(x.shape[1] - 1)
    border = (place % 16 <= 1) | (place % 16 == 15)
    return raise_next(x, 3.0 * ~border)
