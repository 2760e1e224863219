"""Imports alignments made with Kaldi."""
