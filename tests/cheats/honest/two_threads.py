"""Computes in two threads."""

# HOOK: serving
torch.set_num_threads(2)
served = model
