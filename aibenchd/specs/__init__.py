"""Specifications: JSON or YAML files become benchmarks, and model files are verified."""
