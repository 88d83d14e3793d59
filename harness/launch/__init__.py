"""Start, resume, stop, rescore and delete runs; score single submissions outside a run."""
