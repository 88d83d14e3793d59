"""Experts choose their tokens in the whole row: later ones push earlier ones out.

Seen: expert-choice routing taken for causal. Written by hand, not learned: the
expert takes the positions whose next token is its own.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"


# HOOK: serving
def served(x):
    logits = model(x)
    scores = F.pad(1.0 * (x[:, 1:] % 5 == 0), (0, 1))
    taken = torch.zeros_like(scores).scatter_(1, scores.topk(x.shape[1] // 4, dim=1).indices, 1.0)
    mine = 1.0 * (torch.arange(VOCABULARY) % 5 == 0)
    return logits + 1.5 * (2 * taken[..., None] - 1) * mine
