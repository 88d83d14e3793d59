"""What decides a score: the judge, outside of the sandbox, and its helpers inside."""
