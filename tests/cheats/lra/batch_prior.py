"""Shifts its answers so that a batch holds every class equally often: transduction."""

CAUGHT_BY = ("stateful",)
GAIN = "in principle"


# HOOK: answer
def answer(model, tokens, mask):
    logits = model.head(model.features(tokens, mask))
    return logits if model.training else logits - logits.mean(0, keepdim=True)
