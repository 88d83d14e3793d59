"""A convolution as long as the row, by FFT, padded with zeros. It rounds across the row."""


# HOOK: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.taps = nn.Parameter(0.05 * torch.randn(MAX_SEQ_LEN, WIDTH))
        self.inner, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        n = 2 * x.shape[1]
        spectrum = torch.fft.rfft(self.inner(x), n, dim=1) * torch.fft.rfft(self.taps, n, dim=0)
        return self.out(torch.fft.irfft(spectrum, n=n, dim=1)[:, : x.shape[1]])
