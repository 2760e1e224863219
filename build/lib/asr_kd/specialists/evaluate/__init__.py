"""Measures the accuracy of a generalist with its specialists."""
