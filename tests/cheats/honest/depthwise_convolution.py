"""A depthwise convolution over eight positions, padded at the left."""


# HOOK: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(WIDTH, WIDTH, 8, groups=WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.out(F.silu(self.conv(F.pad(x.mT, (7, 0))).mT))
