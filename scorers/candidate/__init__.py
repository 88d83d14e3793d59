"""The code of the judge's that enters the sandbox, each file for itself: none imports another."""
