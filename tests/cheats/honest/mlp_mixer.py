"""An MLP-mixer: one learned lower-triangular matrix over positions."""


# HOOK: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(0.05 * torch.randn(MAX_SEQ_LEN, MAX_SEQ_LEN))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.out(self.weights.tril() @ x)
