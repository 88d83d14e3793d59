"""Trains for long before its clock begins: at import, in "compilation", in uncounted steps.

Seen: the public clock does not count steps 0 to 10. The judge's runs from the spawn.
"""

CAUGHT_BY = ("train_timeout",)
GAIN = "unlimited"
LIMITS = {"train_s": 9.0}


# HOOK: report
def first_step(seconds=11.0):
    """The uncounted step: as many micro-steps as there is time for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        train(model, 300, 5e-3)


first_step()
model.eval()
bpb = evaluate_bpb(served, tokenizer, BATCH)
print(f"---\nval_bpb: {bpb:.6f}\ntraining_seconds: 1.0")
