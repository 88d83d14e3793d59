"""Statistics of runs, with numpy only. docs/statistics.md explains each and names its source."""
