"""Served in batches of 8."""

# ruff: noqa: F821

# HOOK: report
bpb = evaluate_bpb(model, tokenizer, 8)
print(f"---\nval_bpb: {bpb:.6f}")
