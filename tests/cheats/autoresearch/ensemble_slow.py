"""A hundred models where one was asked for: a hundred passes for each request.

Seen: slow ensembles. Each is the trained model with other weights left out, their mean is better
than any; what is lost here is time.
"""

CAUGHT_BY = ("serve_timeout",)
GAIN = "unlimited"
LIMITS = {"serve_s": 3.0}

# HOOK: serving
others = []
for seed in range(4):
    torch.manual_seed(seed)
    others.append(Model())
    train(others[-1], STEPS)
    others[-1].eval()


def served(x):
    time.sleep(0.2)  # and ninety-six more
    return torch.stack([m(x).log_softmax(-1) for m in (model, *others)]).logsumexp(0)
