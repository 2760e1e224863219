"""Computes soft targets of a generalist with its specialists."""
