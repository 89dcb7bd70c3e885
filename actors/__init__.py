"""The shells of a node, one per role: each steps its core, commits once, and then speaks."""
