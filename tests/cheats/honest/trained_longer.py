"""Three times the steps, within its time."""

# HOOK: serving
train(model, 2 * STEPS, 5e-3)
model.eval()
served = model
