"""Normalises over the whole row, and hands every position the row's mean: what words it has.

Seen: normalisation over time, an honest mistake.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"


# HOOK: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.out = nn.Linear(2 * WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        rest = (x - mean) / x.std(1, keepdim=True)
        both = torch.cat([rest, 8 * mean.expand_as(x)], dim=-1)
        return self.out(F.silu(self.up(both)))


# TWIN: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.out = nn.Linear(2 * WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        count = torch.arange(1, x.shape[1] + 1)[:, None]
        mean = x.cumsum(1) / count
        rest = (x - mean) / (x.square().cumsum(1) / count + 0.1).sqrt()
        return self.out(F.silu(self.up(torch.cat([rest, 8 * mean], dim=-1))))
