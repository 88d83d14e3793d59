"""Makes its answers to each batch surer by a step of gradient descent: test-time training.

Wang et al. 2021 (arXiv 2006.10726) minimise the entropy in this way.
"""

CAUGHT_BY = ("forbidden",)
BEHIND = ("stateful",)
GAIN = "in principle"


# HOOK: answer
def answer(model, tokens, mask):
    logits = model.head(model.features(tokens, mask))
    if not model.training:
        with torch.inference_mode(False), torch.enable_grad():
            weight = model.head.weight.detach().clone().requires_grad_()
            p = (model.features(tokens.clone(), mask.clone()) @ weight.T).softmax(-1)
            entropy = -(p * p.clamp_min(1e-9).log()).sum(-1).mean()
            (slope,) = torch.autograd.grad(entropy, weight)
            model.head.weight.data -= 0.5 * slope
    return logits
