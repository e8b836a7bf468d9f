"""Tasks, by name."""
