"""Where untrusted code runs, under which limits, and on which GPU."""
