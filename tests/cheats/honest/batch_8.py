"""Served in batches of 8."""

# HOOK: report
bpb = evaluate_bpb(model, tokenizer, 8)
print(f"---\nval_bpb: {bpb:.6f}")
