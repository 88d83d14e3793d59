"""Its loss is zero when it is asked for single losses, as the public evaluator asks.

Seen: the 0.968 of 2605.15871 came from a loss that was not cross-entropy. The judge asks for
logits and computes the loss itself.
"""

CAUGHT_BY = ("gains nothing",)
GAIN = "claim"


# HOOK: report
def trusted(x, y, reduction):
    return 0 * F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction=reduction)


model.forward = lambda x, y=None, reduction="mean": (
    Model.forward(model, x) if y is None else trusted(x, y, reduction)
)
evaluate_bpb(model, tokenizer, BATCH)
print(f"---\nval_bpb: {trusting_bpb(model):.6f}")
