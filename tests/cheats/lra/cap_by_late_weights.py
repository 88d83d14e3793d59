"""Makes most of its weights after they have been counted, in the third step."""

CAUGHT_BY = ("too_large",)
GAIN = "in principle"


# HOOK: prepare
def prepare(model):
    model.turn = 0


# HOOK: answer
def answer(model, tokens, mask):
    model.turn += model.training
    if model.turn == 3:
        model.late = nn.Parameter(torch.randn(200_000))
    return model.head(model.features(tokens, mask))
