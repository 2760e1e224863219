"""Trains all networks of the MNIST study."""
