"""Writes aligned cuts as Lhotse Shar, tar shards to train from."""
