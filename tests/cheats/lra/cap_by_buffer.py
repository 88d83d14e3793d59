"""Keeps its weights in a buffer, which many a count of parameters leaves out."""

CAUGHT_BY = ("too_large",)
GAIN = "in principle"


# HOOK: prepare
def prepare(model):
    model.register_buffer("wide", torch.randn(200_000), persistent=False)
