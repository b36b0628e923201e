"""Decide: arrays of numbers become verdicts. Pure numpy."""
