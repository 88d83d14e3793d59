"""Replaces the loss by one that trains the model many times over."""

CAUGHT_BY = ("forbidden",)
BEHIND = ()
GAIN = "unruled"


# HOOK: prepare
def prepare(model):
    plain = nn.functional.cross_entropy
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    latest = []

    def many(logits, target):
        x = latest[-1]
        for _ in range(40):
            loss = plain(model.head(model.features(*x)), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        optimizer.zero_grad()
        return plain(model.head(model.features(*x)), target)

    model.latest = latest
    nn.functional.cross_entropy = many


# HOOK: answer
def answer(model, tokens, mask):
    model.latest.append((tokens, mask))
    return model.head(model.features(tokens, mask))
