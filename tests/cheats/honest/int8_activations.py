"""Activations of each position rounded to eight bits, with a scale of its own."""


# HOOK: serving
def rounded(_, inputs):
    (x,) = inputs
    scale = x.abs().amax(-1, keepdim=True) / 127 + 1e-9
    return torch.round(x / scale) * scale


for part in model.modules():
    if isinstance(part, nn.Linear):
        part.register_forward_pre_hook(rounded)
served = model
