"""One matrix for input and output."""

# ruff: noqa: F821

# HOOK: serving
model.head.weight = model.embed.weight
train(model, STEPS)
model.eval()
served = model
