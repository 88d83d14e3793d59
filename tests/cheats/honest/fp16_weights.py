"""All weights and activations in float16."""

# HOOK: serving
model.half()
served = model
