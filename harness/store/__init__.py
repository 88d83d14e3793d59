"""Run folders: the formats of their files, and the code that reads, checks and writes them."""
