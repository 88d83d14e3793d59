"""Answers each request twice, in the hope that the better of two answers counts.

Own. The second answer comes out of turn.
"""

CAUGHT_BY = ("protocol_error",)
GAIN = "claim"

# HOOK: report
import candidate

other = Model()
train(other, STEPS)


class Better(nn.Module):
    """The same for an evaluator that takes the better of two answers, token by token."""

    def forward(self, x, targets, reduction):
        return torch.minimum(*(m(x, targets, reduction=reduction) for m in (model, other)))


once = candidate.Link._send


def twice(link, kind, sequence, body):
    once(link, kind, sequence, body)
    if kind == candidate.LOGITS:
        once(link, kind, sequence, body)


candidate.Link._send = twice
print(f"---\nval_bpb: {trusting_bpb(Better()):.6f}", flush=True)
evaluate_bpb(model, tokenizer, BATCH)
