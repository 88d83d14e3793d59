"""Raises while it is served."""

STEP_S = 0.01


def predict(tokens):
    raise ValueError("broken on purpose")
