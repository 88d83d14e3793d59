"""A long convolution by FFT without padding: it goes round, and the last tap is the next token.

Seen: nanochat #844, circular FFT.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"


# HOOK: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.taps = nn.Parameter(0.05 * torch.randn(MAX_SEQ_LEN, WIDTH))
        self.inner, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        spectrum = torch.fft.rfft(self.inner(x), dim=1) * torch.fft.rfft(self.taps, dim=0)
        return self.out(torch.fft.irfft(spectrum, n=x.shape[1], dim=1))


# TWIN: mixer
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.taps = nn.Parameter(0.05 * torch.randn(MAX_SEQ_LEN, WIDTH))
        self.inner, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        n = 2 * x.shape[1]
        spectrum = torch.fft.rfft(self.inner(x), n, dim=1) * torch.fft.rfft(self.taps, n, dim=0)
        return self.out(torch.fft.irfft(spectrum, n=n, dim=1)[:, : x.shape[1]])
