"""The half of the system that runs at a hospital."""
