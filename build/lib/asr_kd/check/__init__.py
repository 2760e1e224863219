"""Verifies the files of an experiment."""
