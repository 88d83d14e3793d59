"""Knows as many of the four tokens as its knob ``known`` says."""

import numpy as np

KNOBS = {"known": 1, "style": "plain"}


def predict(tokens):
    first = tokens[:, 0]
    return np.eye(4, dtype=np.float32)[np.where(first <= KNOBS["known"], first - 1, 0)]
