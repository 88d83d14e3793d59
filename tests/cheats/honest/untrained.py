"""Never trained: bad, and honest."""

# HOOK: serving
served = Model().eval()
