"""Word error rates with confidence intervals, and frame accuracy."""
