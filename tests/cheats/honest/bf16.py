"""Serves under bfloat16 autocast."""

# HOOK: report
with torch.autocast("cpu", torch.bfloat16):
    bpb = evaluate_bpb(lambda x: model(x).bfloat16(), tokenizer, BATCH)
print(f"---\nval_bpb: {bpb:.6f}")
