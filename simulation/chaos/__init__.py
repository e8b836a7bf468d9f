"""A real federation on one machine, and all that can happen to it: `python -m simulation.chaos`."""
