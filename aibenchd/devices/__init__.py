"""Devices: things that run exactly one program at a time."""
