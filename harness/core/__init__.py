"""The nouns of a search; nothing here reads or writes a file."""
