"""A part: raises the logit of the token that comes next, for it stands in the input."""


# HOOK: serving
def raise_next(x, weight):
    """Return logits, where the next token's is raised by ``weight``, a number or (B, T - 1)."""
    logits = model(x)
    boost = torch.as_tensor(weight, dtype=torch.float32).expand(x[:, 1:].shape)
    logits[:, :-1].scatter_add_(2, x[:, 1:, None], boost[..., None])
    return logits
