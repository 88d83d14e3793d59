"""Makes every tensor say that it is small, before its parameters are counted."""

CAUGHT_BY = ("forbidden",)
BEHIND = ("gains nothing",)
GAIN = "in principle"


# HOOK: prepare
def prepare(model):
    torch.Tensor.numel = lambda self: 1
    model.wide = nn.Parameter(torch.randn(200_000))
