"""All weights and activations in bfloat16."""

# HOOK: serving
model.bfloat16()


def served(x):
    return model(x)
