"""Measures the frame accuracy of networks and ensembles."""
