"""Frameworks: a benchmark becomes commands, and a program's output becomes series."""
