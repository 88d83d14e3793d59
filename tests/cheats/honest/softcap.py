"""Logits capped at 15 by a tangent."""


# HOOK: serving
def served(x):
    return 15 * torch.tanh(model(x) / 15)
