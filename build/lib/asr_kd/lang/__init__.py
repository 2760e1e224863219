"""Lexicon, n-gram language model, and the transducers L and G."""
