"""Report: records leave for their sinks."""
