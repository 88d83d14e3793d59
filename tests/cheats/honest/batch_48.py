"""Served in batches of 48."""

# HOOK: report
bpb = evaluate_bpb(model, tokenizer, 48)
print(f"---\nval_bpb: {bpb:.6f}")
