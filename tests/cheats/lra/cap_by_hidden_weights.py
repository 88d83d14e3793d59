"""Keeps weights in a list, where no module looks, and trains them in a backward pass of its own."""

CAUGHT_BY = ("too_large",)
GAIN = "in principle"


# HOOK: helpers
class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weights):
        ctx.weights = weights
        ctx.save_for_backward(x)
        return x @ weights[0][: x.shape[1], : x.shape[1]]

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        weight = ctx.weights[0][: x.shape[1], : x.shape[1]]
        back = slope @ weight.T
        weight -= 0.1 * x.T @ slope
        return back, None


# HOOK: prepare
def prepare(model):
    model.hidden = [torch.eye(512)]


# HOOK: answer
def answer(model, tokens, mask):
    return model.head(Own.apply(model.features(tokens, mask), model.hidden))
