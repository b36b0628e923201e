"""The status socket and its small client."""
