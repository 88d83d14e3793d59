"""The part of the judge's code that enters the sandbox. No file here imports another."""
