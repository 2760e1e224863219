"""Provides MNIST's files and reads them."""
