"""Which kinds of change made scores better: rules, steps, and what comes out of them."""
