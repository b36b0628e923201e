"""``aibenchd report``: what a stretch of time brought, as one file that can be mailed."""
