"""Copies senones to cuts with other features."""
