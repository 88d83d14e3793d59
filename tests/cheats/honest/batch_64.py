"""Served in batches of 64."""

# HOOK: report
bpb = evaluate_bpb(model, tokenizer, 64)
print(f"---\nval_bpb: {bpb:.6f}")
