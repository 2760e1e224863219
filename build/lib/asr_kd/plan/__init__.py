"""Estimates of a run before it starts: disk, memory, operations and hours of every stage."""
