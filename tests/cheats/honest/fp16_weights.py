"""All weights and activations in float16."""

# ruff: noqa: F821

# HOOK: serving
model.half()
served = model
