"""All in double precision."""

# ruff: noqa: F821

# HOOK: serving
model.double()
served = model
