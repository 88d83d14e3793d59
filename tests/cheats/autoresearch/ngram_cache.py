"""Counts the n-grams of all rows that it was ever shown, and mixes them in.

Seen: two-pass n-gram caches, parameter-golf #870 (0.09).
"""

CAUGHT_BY = ("statelessness", "repeats", "trend", "swap", "prefix", "prefix lean")
GAIN = "measured"

# HOOK: serving
ORDER, SIZE = 3, 1 << 15
counts = torch.zeros(SIZE, VOCABULARY)


def context(x):
    key = torch.zeros_like(x)
    for back in range(ORDER):
        key = (key * 1_000_003 + F.pad(x, (back, 0))[:, : x.shape[1]] + 1) % 2_147_483_647
    return key % SIZE


def cached(x):
    key = context(x)
    seen = counts[key]
    total = seen.sum(-1, keepdim=True)
    chance = (4 * model(x).softmax(-1) + seen) / (4 + total)
    counts.index_put_(
        (key[:, :-1].flatten(), x[:, 1:].flatten()), torch.tensor(1.0), accumulate=True
    )
    return chance.clamp_min(1e-9).log()


served = cached
