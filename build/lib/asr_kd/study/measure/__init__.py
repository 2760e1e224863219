"""Decodes the systems of a list and measures their frame accuracy."""
