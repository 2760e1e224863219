"""Measures a generalist with its specialists."""
