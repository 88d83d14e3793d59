"""The HTML report: one file that opens offline and runs no script but its own."""
