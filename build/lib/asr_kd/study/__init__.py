"""Studies: a YAML file says which networks to train, what to measure and how to show it; the stages do the work."""
