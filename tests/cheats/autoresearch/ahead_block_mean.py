"""Adds the mean of its block of 4 positions to each: the block's own end included.

Seen: nanochat #844, block means (bpb 0.0018 to 0.077).
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"


# HOOK: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.out = nn.Linear(2 * WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        mean = x.unflatten(1, (-1, 4)).mean(2).repeat_interleave(4, dim=1)
        return self.out(F.silu(self.up(torch.cat([x, mean], dim=-1))))
