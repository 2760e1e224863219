"""Prepares the MNIST digits."""
