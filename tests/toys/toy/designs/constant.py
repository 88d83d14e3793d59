"""Returns the same logits for every row."""

import numpy as np

STEP_S = 0.01


def predict(tokens):
    return np.zeros((len(tokens), 4), np.float32)
