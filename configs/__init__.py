"""Hydra groups: what a study may choose from."""
