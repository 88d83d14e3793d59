"""Helpers that every package may import. They import nothing of ours but each other."""
