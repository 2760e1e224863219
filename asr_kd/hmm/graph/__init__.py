"""Builds the decoding graph HCLG."""
