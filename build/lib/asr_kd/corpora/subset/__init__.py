"""Copies of a folder of cuts with a part of the training split."""
