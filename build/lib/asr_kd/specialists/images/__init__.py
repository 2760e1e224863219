"""Prepares images of many classes."""
