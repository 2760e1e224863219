"""Copies the senones of an alignment to the cuts of other features."""
