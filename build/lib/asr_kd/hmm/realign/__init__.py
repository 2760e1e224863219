"""Realigns the corpus with the scores of networks or with stored scores."""
