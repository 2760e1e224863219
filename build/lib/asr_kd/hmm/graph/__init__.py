"""Compiles the decoding graph HCLG."""
