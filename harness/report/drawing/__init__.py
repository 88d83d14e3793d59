"""What pages are drawn with: templates, plots, and strangers' texts made harmless."""
