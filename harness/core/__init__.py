"""The data types and interfaces of a search; nothing here reads or writes a file."""
