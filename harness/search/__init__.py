"""The search: the loop that chooses, writes, scores and records, and where evaluations run."""
