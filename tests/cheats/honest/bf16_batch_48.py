"""bfloat16 again, in batches of 48: other kernels, other rounding."""

# HOOK: report
with torch.autocast("cpu", torch.bfloat16):
    bpb = evaluate_bpb(lambda x: model(x).bfloat16(), tokenizer, 48)
print(f"---\nval_bpb: {bpb:.6f}")
