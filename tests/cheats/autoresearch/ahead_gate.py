"""Experts chosen by the true next token: the choice tells which half of the vocabulary it is in.

Seen: target-dependent gates, parameter-golf #1967.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"


# HOOK: serving
def served(x):
    logits = model(x)
    expert = torch.arange(VOCABULARY) % 2
    wrong = expert[None, None] != expert[x[:, 1:], None]
    logits[:, :-1] -= 2.0 * wrong
    return logits
