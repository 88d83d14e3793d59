"""Linear attention with a running state."""


# HOOK: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.qk, self.v = nn.Linear(WIDTH, 32), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k = F.softplus(self.qk(x)).chunk(2, dim=-1)
        state = torch.einsum("bti,btj->btij", k, self.v(x)).cumsum(1)
        total = (q * k.cumsum(1)).sum(-1, keepdim=True)
        return torch.einsum("bti,btij->btj", q, state) / total
