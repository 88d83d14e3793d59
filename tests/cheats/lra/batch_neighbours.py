"""Answers with the mean of a row and the row of its batch most like it: transduction."""

CAUGHT_BY = ("stateful",)
GAIN = "in principle"


# HOOK: answer
def answer(model, tokens, mask):
    x = model.features(tokens, mask)
    if not model.training and len(x) > 1:
        others = torch.cdist(x, x) + torch.diag(torch.full((len(x),), 1e9))
        x = (x + x[others.argmin(dim=1)]) / 2
    return model.head(x)
