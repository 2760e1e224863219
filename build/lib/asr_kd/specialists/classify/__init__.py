"""Trains a generalist or a student on images."""
