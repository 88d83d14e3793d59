"""A pointer: a share of the probability goes to tokens of the row's own past."""

# HOOK: serving
key = model.embed


def served(x):
    now = F.rms_norm(key(x) + 0.5 * shifted(key(x)), (WIDTH,))
    past = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril(-1)
    weights = (now @ now.mT / 4).masked_fill(~past, -1e4).softmax(-1) * past
    # What followed the place that looks like this one: it lies in the past as well.
    followed = F.one_hot(x.roll(-1, 1), VOCABULARY).float()
    return (0.9 * model(x).softmax(-1) + 0.1 * weights @ followed + 1e-9).log()
