"""Imports alignments made elsewhere: Kaldi's, and phones with times."""
