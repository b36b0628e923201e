"""Build: a revision becomes programs."""
