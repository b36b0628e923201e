"""aibenchd: for each commit and device, whether a network's inference got slower or wrong."""

__version__ = "0.1.0"
