"""Prints a score and ends, untrained and without being measured.

Seen: every benchmark that reads a number from the output.
"""

CAUGHT_BY = ("interface_error",)
GAIN = "claim"

# HOOK: settings
import sys

print("trained\n---\nval_bpb: 0.100000\ntraining_seconds: 300.0", flush=True)
sys.exit(0)
