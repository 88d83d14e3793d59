"""Attention whose mask is off by one: a position sees the next. Learned, and so used.

Seen: nanochat #844, an honest mistake at times; the score is no less wrong.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"


# HOOK: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.after = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril(1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y) + self.after(F.pad(x, (0, 0, 0, 1))[:, 1:])
