"""Says that it is ready, and trains when the first rows are there.

Seen: calibration past the cap, parameter-golf #1028. Training ends with the first answer, not
with the word that it is over.
"""

CAUGHT_BY = ("train_timeout",)
GAIN = "unlimited"
LIMITS = {"train_s": 9.0}

# HOOK: serving
trained = False


def served(x):
    global trained
    if not trained:
        trained = True
        until = time.monotonic() + 11
        while time.monotonic() < until:
            with torch.enable_grad():
                train(model, 300, 5e-3)
        model.eval()
    return model(x)
