"""Adapts to the bigrams of the whole batch, each row's own future included.

Seen: peeking across the batch.
"""

CAUGHT_BY = ("statelessness", "repeats", "trend", "swap", "prefix", "prefix lean")
GAIN = "measured"


# HOOK: serving
def served(x):
    counts = torch.zeros(VOCABULARY, VOCABULARY)
    counts.index_put_((x[:, :-1].flatten(), x[:, 1:].flatten()), torch.tensor(1.0), accumulate=True)
    seen = counts[x]
    chance = (8 * model(x).softmax(-1) + seen) / (8 + seen.sum(-1, keepdim=True))
    return chance.log()
