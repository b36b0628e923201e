"""Watch: a remote becomes revisions."""
