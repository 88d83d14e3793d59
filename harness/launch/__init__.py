"""From what was asked to a run, and from an interrupted one to its end."""
