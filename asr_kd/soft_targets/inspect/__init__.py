"""Shows what a store of soft targets holds."""
