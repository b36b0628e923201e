"""Formats: what a record looks like to one kind of receiver."""
