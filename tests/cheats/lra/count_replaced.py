"""Makes every tensor say that it is small, before its parameters are counted."""

# ruff: noqa: F821, E402, F401, PTH123, SIM115

CAUGHT_BY = ("forbidden",)
BEHIND = ("gains nothing",)
GAIN = "in principle"


# HOOK: prepare
def prepare(model):
    torch.Tensor.numel = lambda self: 1
    model.wide = nn.Parameter(torch.randn(200_000))
