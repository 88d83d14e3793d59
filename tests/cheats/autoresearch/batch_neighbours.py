"""Adapts to the n-grams of the other rows of the batch; its own row is left out.

Own: causal in each row, but not a function of the row.
"""

CAUGHT_BY = ("statelessness", "repeats", "trend", "swap", "prefix", "prefix lean")
GAIN = "measured"


# HOOK: serving
def served(x):
    before = F.pad(x, (1, 0))[:, :-1]
    key = (x * 31 + before * 1_009 + F.pad(x, (2, 0))[:, :-2] * 100_003) % 8192
    counts = torch.zeros(8192, VOCABULARY)
    one = torch.tensor(1.0)
    counts.index_put_((key[:, :-1].flatten(), x[:, 1:].flatten()), one, accumulate=True)
    same = (key[:, :, None] == key[:, None, :-1]).float()
    own = same @ F.one_hot(x[:, 1:], VOCABULARY).float()
    seen = counts[key] - own
    chance = (4 * model(x).softmax(-1) + seen) / (4 + seen.sum(-1, keepdim=True))
    return chance.clamp_min(1e-9).log()


# HOOK: report
bpb = evaluate_bpb(served, tokenizer, 64)
print(f"---\nval_bpb: {bpb:.6f}")
