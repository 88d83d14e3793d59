"""Served in batches of 1."""

# HOOK: report
bpb = evaluate_bpb(model, tokenizer, 1)
print(f"---\nval_bpb: {bpb:.6f}")
