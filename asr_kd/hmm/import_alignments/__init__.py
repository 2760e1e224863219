"""Imports alignments that Kaldi made."""
