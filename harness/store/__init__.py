"""Run folders: what they hold, read and written here and nowhere else."""
