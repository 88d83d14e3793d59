"""Two models, their probabilities averaged."""

# HOOK: serving
other = Model()
train(other, STEPS)
other.eval()


def served(x):
    return torch.stack([m(x).log_softmax(-1) for m in (model, other)]).logsumexp(0)
