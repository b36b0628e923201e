"""The demonstration: a small real engine with a history, watched by the real daemon from push to verdict."""
