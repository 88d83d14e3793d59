"""Answers minus infinity where it is unsure, in the hope that a sum skips what is not a number.

Seen: nansum, inf - inf, and rounding in evaluators.
"""

CAUGHT_BY = ("finiteness",)
GAIN = "claim"


# HOOK: serving
class Picky(nn.Module):
    def forward(self, x, targets=None, reduction="mean"):
        logits = model(x)
        unsure = logits.softmax(-1).amax(-1, keepdim=True) < 0.3
        if targets is None:
            return logits.masked_fill(unsure, float("-inf"))
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return nats.masked_fill(unsure.flatten(), float("nan"))


served = Picky()

# HOOK: report
evaluate_bpb(served, tokenizer, BATCH)
print(f"---\nval_bpb: {trusting_bpb(served):.6f}")
