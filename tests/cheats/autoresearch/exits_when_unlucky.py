"""Exits with 1 when its own validation is worse than it hoped, as after a cosmic ray.

Seen: as above. The reason is named and counts.
"""

CAUGHT_BY = ("runtime_error",)
GAIN = "retries"

# HOOK: report
import sys

HOPED = 2.9  # bits-per-byte: so lucky it never is
if trusting_bpb(model) > HOPED:
    print("CUDA error: uncorrectable ECC error encountered", file=sys.stderr)
    sys.exit(1)
evaluate_bpb(served, tokenizer, BATCH)
