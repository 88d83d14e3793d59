"""Keeps what it was asked, and answers with the mean over what it has seen so far."""

CAUGHT_BY = ("stateful",)
GAIN = "in principle"


# HOOK: prepare
def prepare(model):
    model.seen = []


# HOOK: answer
def answer(model, tokens, mask):
    x = model.features(tokens, mask)
    if not model.training:
        past = torch.cat([*model.seen, x])
        model.seen.append(x)
        x = (
            x + past[torch.cdist(x, past).topk(min(5, len(past)), largest=False).indices].mean(1)
        ) / 2
    return model.head(x)
