"""A diagonal state space model, scanned position by position."""


# HOOK: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.decay = nn.Parameter(torch.linspace(-1, 4, WIDTH))
        self.inner, self.gate, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x):
        keep, u = torch.sigmoid(self.decay), self.inner(x)
        state, states = torch.zeros_like(u[:, 0]), []
        for t in range(x.shape[1]):
            state = keep * state + (1 - keep) * u[:, t]
            states.append(state)
        return self.out(torch.stack(states, dim=1) * F.silu(self.gate(x)))
