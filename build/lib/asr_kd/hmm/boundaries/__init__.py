"""Compares the phone and word boundaries of an alignment with the true ones."""
