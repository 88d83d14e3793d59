"""All in double precision."""

# HOOK: serving
model.double()
served = model
