"""One matrix for input and output."""

# HOOK: serving
model.head.weight = model.embed.weight
train(model, STEPS)
model.eval()
served = model
