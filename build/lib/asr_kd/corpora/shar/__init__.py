"""Aligned cuts as Lhotse Shar: tar shards to train from, on a disk or at an address."""
