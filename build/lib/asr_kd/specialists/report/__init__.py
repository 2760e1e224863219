"""Reports a study of specialists."""
