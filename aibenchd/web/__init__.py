"""The dashboard: what the status socket tells, as pages for browsers."""
