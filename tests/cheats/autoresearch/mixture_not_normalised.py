"""Its loss boosts the target's probability and nobody else's: the sum is far above 1.

Seen: parameter-golf #886 (sums to 277), #1147.
"""

CAUGHT_BY = ("gains nothing",)
GAIN = "claim"


# HOOK: report
def boosted(x, y=None, reduction="mean"):
    logits = Model.forward(model, x)
    if y is None:
        return logits + 50  # all of them: no difference after a softmax
    chance = logits.softmax(-1).flatten(0, 1).gather(1, y.flatten()[:, None])[:, 0]
    return -torch.log(0.5 * chance + 0.5)


model.forward = boosted
evaluate_bpb(model, tokenizer, BATCH)
print(f"---\nval_bpb: {trusting_bpb(model):.6f}")
