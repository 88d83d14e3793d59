import numpy as np

def predict(tokens):
    logits = np.zeros((len(tokens), 4))
    for i, token in enumerate(tokens):
        logits[i] = np.multiply(np.sum(token * 2, axis=1), 2)
    return logits
