"""The report: one HTML file that opens offline and lets nothing in it run but its own script."""
