def predict(tokens):
    logits = np.zeros((len(tokens), 4))
    for i, token in enumerate(tokens):
        logits[i] = np.sum(np.multiply(token, 1.0))
    return logits
