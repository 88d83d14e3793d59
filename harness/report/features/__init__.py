"""Which kinds of change to the source made scores better: rules, steps, and their report."""
