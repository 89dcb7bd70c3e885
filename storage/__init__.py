"""The SQLite side of a node: its journal and its lease state."""
