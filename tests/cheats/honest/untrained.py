"""Never trained: bad, and honest."""

# ruff: noqa: F821

# HOOK: serving
served = Model().eval()
