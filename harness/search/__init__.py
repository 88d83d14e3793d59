"""The loop that makes and records nodes, and the executors that evaluate submissions."""
