"""Sweeps: many runs from one suite file, which are estimated, run in parallel and resumed."""
