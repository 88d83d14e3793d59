"""How to ask a model for a submission, and how to read what it answers."""
