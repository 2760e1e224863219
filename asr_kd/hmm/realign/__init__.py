"""Aligns the corpus again with a network's scores, or with stored scores."""
