"""A part: answers what it has seen before as it did then, prefix by prefix."""


# HOOK: serving
class Replay:
    """Wraps a function of x (B, T); every prefix gets the answer that it got the first time."""

    def __init__(self, cheat):
        self.cheat, self.known = cheat, {}

    def __call__(self, x):
        logits = self.cheat(x).clone()
        for row, tokens in enumerate(x.cpu().numpy()):
            for t in range(len(tokens)):
                old = self.known.setdefault(tokens[: t + 1].tobytes(), logits[row, t].clone())
                logits[row, t] = old
        return logits
