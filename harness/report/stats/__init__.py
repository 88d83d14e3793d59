"""Statistics of runs. docs/concepts/statistics.md explains each and names its source."""
