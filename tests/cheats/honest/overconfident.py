"""Three times the logits: wrong with great certainty, and honest."""


# HOOK: serving
def served(x):
    return 3 * model(x)
