"""What is said of runs: tables, pages, statistics, exports, bundles."""
