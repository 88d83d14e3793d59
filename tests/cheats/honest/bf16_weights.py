"""All weights and activations in bfloat16."""

# ruff: noqa: F821

# HOOK: serving
model.bfloat16()


def served(x):
    return model(x)
