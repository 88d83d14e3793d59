"""Statistics of runs, on numpy alone: each is explained, with its source, in docs/statistics.md."""
