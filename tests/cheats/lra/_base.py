"""An honest mechanism: a causal mean over prefixes, small enough to train in seconds."""

# HOOK: imports
import torch
from torch import nn

# HOOK: helpers


# HOOK: model
class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout) -> None:
        super().__init__()
        self.classes = classes
        self.embed = nn.Embedding(vocabulary, dim)
        self.mix = nn.Linear(2 * dim, dim)
        self.head = nn.Linear(dim, classes)
        prepare(self)

    def features(self, tokens, mask):
        x = self.embed(tokens) * mask[..., None]
        mean = x.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        x = torch.relu(self.mix(torch.cat((x, mean), dim=-1)))
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def forward(self, tokens, mask):
        return answer(self, tokens, mask)


# HOOK: prepare
def prepare(model):
    pass


# HOOK: answer
def answer(model, tokens, mask):
    return model.head(model.features(tokens, mask))
