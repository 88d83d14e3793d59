"""Smears each position with the one before, gated; across BOS too, which is behind it."""


# HOOK: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.out = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.out(x + torch.sigmoid(self.gate(x)) * shifted(x))
