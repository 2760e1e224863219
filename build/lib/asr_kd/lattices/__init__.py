"""Sequence training: decoded lattices as a store, sums over their paths, and criteria of whole utterances."""
