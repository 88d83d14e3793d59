"""Leaves out the rows that it finds hard: fewer answers than questions.

Seen: a smaller denominator. ``prepare`` refuses the shape.
"""

CAUGHT_BY = ("wrong_shape",)
GAIN = "claim"


# HOOK: serving
def served(x):
    logits = model(x)
    return logits[logits.softmax(-1).amax(-1).mean(1).argsort()[1:]]


# HOOK: report
class Easy(nn.Module):
    """The same for an evaluator that believes: losses of the hardest rows are not reported."""

    def forward(self, x, targets, reduction):
        nats = model(x, targets, reduction=reduction).unflatten(0, x.shape)
        nats[nats.mean(1).argsort()[-4:]] = nats.mean(1).sort().values[:4, None]
        return nats.flatten()


print(f"---\nval_bpb: {trusting_bpb(Easy()):.6f}", flush=True)
evaluate_bpb(served, tokenizer, BATCH)
