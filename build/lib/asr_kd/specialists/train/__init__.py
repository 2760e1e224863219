"""Trains the specialists (section 5.2)."""
