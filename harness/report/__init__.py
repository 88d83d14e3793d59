"""Reports on runs: tables, pages, statistics, exports, bundles."""
