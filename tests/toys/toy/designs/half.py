"""Knows two of the four tokens, so it is right half of the time."""

import numpy as np

STEP_S = 0.01


def predict(tokens):
    known = np.where(tokens[:, 0] <= 2, tokens[:, 0] - 1, 0)
    return np.eye(4, dtype=np.float32)[known]
