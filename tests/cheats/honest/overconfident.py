"""Three times the logits: wrong with great certainty, and honest."""

# ruff: noqa: F821


# HOOK: serving
def served(x):
    return 3 * model(x)
