"""What everybody may import, and what imports nothing of ours."""
