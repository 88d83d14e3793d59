"""The search: the loop that makes and records nodes, and the executors of evaluations."""
