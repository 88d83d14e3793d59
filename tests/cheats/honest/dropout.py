"""Trained with dropout, which is off when it serves."""


# HOOK: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out, self.drop = nn.Linear(WIDTH, WIDTH), nn.Dropout(0.1)

    def forward(self, x):
        q, k, v = self.qkv(self.drop(x)).chunk(3, dim=-1)
        return self.drop(self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
