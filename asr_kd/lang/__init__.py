"""Lexicon, n-gram model, and the graphs L and G."""
