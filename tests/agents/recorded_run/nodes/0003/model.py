import numpy as np

def predict(tokens):
    logits = np.zeros((len(tokens), 4))
    for i, token in enumerate(tokens):
        logits[i] = np.multiply(token, 1.0)
    return logits
