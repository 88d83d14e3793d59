"""Computes in two threads."""

# ruff: noqa: F821

# HOOK: serving
torch.set_num_threads(2)
served = model
