"""Plan: revisions, benchmarks, devices and verdicts become experiments. Pure."""
