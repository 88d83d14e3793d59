"""How to ask a model for a submission, and how to read what it answers."""

from harness.operators.literature import literature_hash, shipped
from harness.operators.style import Style
from harness.operators.templates import prompts_hash

__all__ = ["Style", "literature_hash", "prompts_hash", "shipped"]
