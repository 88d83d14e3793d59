"""Counts of the bigrams in the row's own past: causal, and without memory."""


# HOOK: serving
def served(x):
    same = (x[:, :, None] == x[:, None, :]).float().tril(-1)
    seen = same @ F.one_hot(x.roll(-1, 1), VOCABULARY).float()
    chance = 6 * model(x).softmax(-1) + seen
    return (chance / chance.sum(-1, keepdim=True)).log()
