"""How to ask a model for a submission, and how to read its answer."""
