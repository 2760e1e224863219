"""Assigns classes to specialists (section 5.3)."""
