"""Linear attention in chunks of 8; the state that a chunk reads has the chunk itself in it.

Seen: nanochat #844, chunk state.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"


# HOOK: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = (F.silu(y).unflatten(1, (-1, 8)) for y in self.qkv(x).chunk(3, dim=-1))
        state = torch.einsum("bcti,bctj->bcij", k, v)
        y = torch.einsum("bcti,bcij->bctj", q, state + 0.3 * (state.cumsum(1) - state))
        return self.out(F.rms_norm(y.flatten(1, 2), (WIDTH,)))
